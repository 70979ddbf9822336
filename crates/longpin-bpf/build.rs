//! Compiles the BPF programs, once for each way to read kernel memory and each purpose, and generates their skeleton.

use std::path::Path;
use std::path::PathBuf;
use std::{env, fs};

use libbpf_cargo::SkeletonBuilder;

type Failure = Box<dyn std::error::Error>;

const GUARD: &str = "src/bpf/guard.bpf.c";
const SYMBOLS: &str = "src/bpf/symbols.bpf.c";
/// For kernels with `bpf_rdonly_cast`.
const CAST: &str = "-DWITH_RDONLY_CAST";
/// For explicit holds alone.
const HOLDS: &str = "-DONLY_HOLDS";

fn main() {
    println!("cargo::rerun-if-changed=src/bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    if let Err(err) = build(&out) {
        println!("cargo::error=cannot build the BPF programs: {err:#}");
        println!("cargo::error=they need clang, libelf-dev, zlib1g-dev and linux-libc-dev");
    }
}

/// All objects have the same maps and programs, so they share one skeleton; which one it opens `object` says.
fn build(out: &Path) -> Result<(), Failure> {
    let skeleton = out.join("guard.skel.rs");
    builder(GUARD, &out.join("guard.o"), &[CAST]).build_and_generate(&skeleton)?;
    builder(GUARD, &out.join("plain.o"), &[]).build()?;
    builder(GUARD, &out.join("holds.o"), &[CAST, HOLDS]).build()?;
    builder(GUARD, &out.join("plain-holds.o"), &[HOLDS]).build()?;
    builder(SYMBOLS, &out.join("symbols.o"), &[])
        .build_and_generate(out.join("symbols.skel.rs"))?;
    let text = fs::read_to_string(&skeleton)?;
    fs::write(out.join("state.rs"), shared_state(&text)?)?;
    let (own, ours) = ("::new(&DATA)", "::new(crate::object::chosen())");
    if text.matches(own).count() != 1 {
        return Err(format!("the skeleton does not say {own} once").into());
    }
    fs::write(&skeleton, text.replace(own, ours))?;
    Ok(())
}

const STATE: &str = "\
/// `struct guard_state` of `bpf/shared.h`, of atomics: the programs write it meanwhile.
#[derive(Debug)]
#[repr(C)]
pub struct GuardState {
";

/// The state once more, with an atomic for each number.
fn shared_state(skeleton: &str) -> Result<String, Failure> {
    let found = skeleton.split_once("pub struct guard_state {");
    let found = found.and_then(|(_, rest)| rest.split_once('}'));
    let (fields, _) = found.ok_or("the skeleton has no guard_state")?;
    let mut text = STATE.to_owned();
    for field in fields.lines().filter(|line| !line.trim().is_empty()) {
        let (name, number) = field.split_once(": ").ok_or("a field without a type")?;
        if !number.trim_start_matches('[').starts_with('u') {
            return Err(format!("guard_state:{field} has no atomic").into());
        }
        text += &format!("{name}: {}\n", number.replacen('u', "AtomicU", 1));
    }
    Ok(text + "}\n")
}

fn builder(source: &str, object: &Path, more: &[&str]) -> SkeletonBuilder {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let mut arguments = vec![
        "-mcpu=v3".to_owned(),
        "-Wall".to_owned(),
        "-Werror".to_owned(),
        // Debian keeps asm/ under the multiarch name; elsewhere the folder does not exist.
        format!("-idirafter/usr/include/{arch}-linux-gnu"),
    ];
    arguments.extend(more.iter().map(|&word| word.to_owned()));
    let mut builder = SkeletonBuilder::new();
    builder.source(source).obj(object).clang_args(arguments);
    builder
}
