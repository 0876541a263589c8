//! Compiles the program that forwards inside the kernel, if the feature `kernel` is wanted. Otherwise nothing is built here.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const SOURCE: &str = "src/kernel/forward.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    if var_os("CARGO_FEATURE_KERNEL").is_none() {
        return;
    }
    if let Err(why) = compile() {
        println!("cargo::error={why}");
        exit(1);
    }
}

fn compile() -> Result<(), String> {
    let variable = |name| var_os(name).ok_or(format!("cargo does not set {name}"));
    let object = PathBuf::from(variable("OUT_DIR")?).join("forward.bpf.o");
    // The program runs in the kernel of the machine that is built for.
    let is_big = variable("CARGO_CFG_TARGET_ENDIAN")? == "big";
    let target = if is_big { "bpfeb" } else { "bpfel" };
    let clang = var_os("CLANG").unwrap_or_else(|| "clang".into());
    let mut command = Command::new(&clang);
    // Version 3 has the atomic operations of Linux 5.12. The line numbers are for the kernel's verifier.
    command.args(["-O2", "-g", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-target", target]);
    // Debian has asm/types.h in a folder for the processor, where clang does not look for another target. The file is the
    // same for all of them.
    let machine = variable("HOST")?.to_string_lossy().split('-').next().unwrap_or("").to_owned();
    let headers = format!("/usr/include/{machine}-linux-gnu");
    if Path::new(&headers).is_dir() {
        command.args(["-isystem", &headers]);
    }
    let folder = variable("CARGO_MANIFEST_DIR")?;
    // The folder in which it is built is no part of the program.
    command.args(["-fdebug-compilation-dir=.", "-c", SOURCE, "-o"]).arg(&object);
    let output = command.current_dir(folder).output().map_err(|error| {
        format!(
            "the feature `kernel` needs clang, and {clang:?} does not run: {error}; install Debian's packages clang and \
             linux-libc-dev, or set CLANG to the compiler, or build without the feature"
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "\ncargo::error=");
    Err(format!(
        "clang cannot compile {SOURCE}; it needs clang 11 or newer, and linux-libc-dev: {words}"
    ))
}
