//! Names the library for the loader: programs in C ask for it by its soname, whose number changes with its ABI.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,liblongpin.so.0");
}
