//! `bpf-linker`, built once for the LLVM inside the active tool chain.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::Path,
    process::{self, Command, Stdio},
};

use anyhow::{Context, Result};

use super::toolchain::Toolchain;
use crate::shell::{cargo, run};

const VERSION: &str = "0.13.0";

/// Builds the linker unless a working one is there, and points `CACHE/bpf-linker` at it, where the agent's
/// build script looks.
///
/// # Errors
///
/// It cannot be downloaded or built.
pub(super) fn bring(toolchain: &Toolchain, cache: &Path) -> Result<()> {
    let home = cache.join(format!("bpf-linker-{VERSION}-llvm22-{}", toolchain.release));
    let program = home.join("bin/bpf-linker");
    if !works(&program) {
        build(toolchain, cache, &home)?;
    }
    let link = cache.join("bpf-linker");
    if fs::read_link(&link).ok().as_deref() != Some(&program) {
        replace_link(&program, &link)?;
        eprintln!("setup: {} -> {}", link.display(), program.display());
    }
    Ok(())
}

fn works(program: &Path) -> bool {
    let mut asked = Command::new(program);
    asked
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}

/// Builds beside the final place and moves there, so that a build cut short leaves nothing that looks done.
fn build(toolchain: &Toolchain, cache: &Path, home: &Path) -> Result<()> {
    eprintln!(
        "setup: building bpf-linker {VERSION} for the LLVM of Rust {} (about a minute, once)",
        toolchain.release
    );
    let prefix = cache.join(format!("llvm-{}", toolchain.release));
    fs::create_dir_all(prefix.join("lib"))
        .with_context(|| format!("cannot make {}", prefix.display()))?;
    replace_link(&toolchain.llvm()?, &prefix.join("lib/libLLVM.so"))?;

    let partial = cache.join(format!("bpf-linker-partial-{}", process::id()));
    let flags = format!(
        "-C link-arg=-Wl,-rpath,{}",
        toolchain.sysroot.join("lib").display()
    );
    let mut install = cargo();
    install
        .args([
            "install",
            "--quiet",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
        ])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(&partial)
        // Not the workspace's settings, nor its target folder.
        .current_dir(cache)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET_DIR")
        .env("LLVM_PREFIX", &prefix)
        .env("RUSTFLAGS", flags);
    let built = run(&mut install).context(
        "cannot build bpf-linker; it needs a C compiler (`apt-get install gcc`) and access to crates.io",
    );
    if built.is_ok() {
        // Whatever is at the final place does not work, or another setup put it there meanwhile.
        let _ = fs::remove_dir_all(home);
        fs::rename(&partial, home).with_context(|| format!("cannot move to {}", home.display()))?;
    }
    let _ = fs::remove_dir_all(&partial);
    built
}

/// A link that is there, old or new, at every moment.
fn replace_link(target: &Path, link: &Path) -> Result<()> {
    let fresh = link.with_extension(format!("new-{}", process::id()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    symlink(target, &fresh)
        .and_then(|()| fs::rename(&fresh, link))
        .with_context(|| format!("cannot link {}", link.display()))
}
