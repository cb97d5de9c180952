//! Builds the kernel programs and leaves the object where `include_bytes!` finds it, so that the agent
//! is one file.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

const TARGET: &str = "bpfel-unknown-none";

fn main() -> anyhow::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("run by cargo")?);
    let root = here.parent().context("lb-agent stands in a workspace")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("run by cargo")?);
    for room in ["lb-ebpf", "lb-common"] {
        println!("cargo:rerun-if-changed={}", root.join(room).display());
    }
    println!("cargo:rerun-if-env-changed=LB_BPF_LINKER");
    let object = build(root, &out)?;
    println!("cargo:rustc-env=LB_EBPF_OBJECT={}", object.display());
    Ok(())
}

/// A stable compiler builds for the BPF target when it may use `-Z build-std`; that is why
/// `RUSTC_BOOTSTRAP` is set, for this one build alone.
fn build(root: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let target_dir = out.join("ebpf");
    let linker = linker()?;
    let status = Command::new(env::var_os("CARGO").context("run by cargo")?)
        .current_dir(root)
        .args([
            "build",
            "--package",
            "lb-ebpf",
            "--bin",
            "lb-ebpf",
            "--release",
            "--target",
            TARGET,
        ])
        .args(["-Z", "build-std=core", "--locked", "--target-dir"])
        .arg(&target_dir)
        .args(env::var_os("CARGO_FEATURE_TRACE").map(|_| "--features=lb-ebpf/trace"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTC")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            [
                "--cfg=bpf_target_arch=\"x86_64\"",
                // Atomic additions that give the old value; 5.12, and 32-bit arithmetic without shifts.
                "-Ctarget-cpu=v3",
                "-Cdebuginfo=2",
                "-Clink-arg=--btf",
                &format!("-Clinker={}", linker.display()),
            ]
            .join("\x1f"),
        )
        .status()
        .context("cannot start cargo for the kernel programs")?;
    if !status.success() {
        bail!(
            "the kernel programs do not build; if bpf-linker or rust-src is missing, run `cargo xtask setup`"
        );
    }
    Ok(target_dir.join(TARGET).join("release/lb-ebpf"))
}

/// `$LB_BPF_LINKER`, the one that `cargo xtask setup` keeps in the cache, or whatever is on the path.
fn linker() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("LB_BPF_LINKER") {
        return Ok(path.into());
    }
    let cache = env::var_os("LB_AGENT_CACHE")
        .map(PathBuf::from)
        .or_else(|| env::var_os("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("lb-agent")))
        .or_else(|| env::var_os("HOME").map(|dir| PathBuf::from(dir).join(".cache/lb-agent")))
        .context("no home folder to look for bpf-linker in; set LB_BPF_LINKER")?;
    let cached = cache.join("bpf-linker");
    if cached.exists() {
        Ok(cached)
    } else {
        Ok("bpf-linker".into())
    }
}
