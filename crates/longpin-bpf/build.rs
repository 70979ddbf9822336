//! Compiles the BPF programs and generates their skeleton.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    println!("cargo::rerun-if-changed=src/bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("guard.skel.rs");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let built = SkeletonBuilder::new()
        .source("src/bpf/guard.bpf.c")
        // Debian keeps asm/ under the multiarch name; elsewhere the folder does not exist.
        .clang_args([
            "-mcpu=v3".to_owned(),
            "-Wall".to_owned(),
            "-Werror".to_owned(),
            format!("-idirafter/usr/include/{arch}-linux-gnu"),
        ])
        .build_and_generate(&out);
    if let Err(err) = built {
        println!("cargo::error=cannot build the BPF programs: {err:#}");
        println!("cargo::error=they need clang, libelf-dev, zlib1g-dev and linux-libc-dev");
    }
}
