//! The active Rust tool chain and what it contains.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{output, root, run};

/// The LLVM that `bpf-linker` is built for; a newer Rust needs a newer `bpf-linker` too.
const LLVM: u32 = 22;

/// What `rustc` says about itself.
#[derive(Debug)]
pub(super) struct Toolchain {
    /// `1.95.0`.
    pub(super) release: String,
    /// Where its files are.
    pub(super) sysroot: PathBuf,
}

// === impl Toolchain ===

impl Toolchain {
    /// The one of `rust-toolchain.toml`, which rustup brings by itself.
    ///
    /// # Errors
    ///
    /// There is no `rustc`, or its LLVM is another one.
    pub(super) fn active() -> Result<Self> {
        let about = output(rustc().arg("-vV"))?;
        let llvm = field(&about, "LLVM version")?;
        let major: u32 = llvm
            .split('.')
            .next()
            .unwrap_or_default()
            .parse()
            .unwrap_or(0);
        ensure!(
            major == LLVM,
            "this rustc has LLVM {llvm}, and bpf-linker is pinned for LLVM {LLVM}: change both in \
             rust-toolchain.toml and xtask/src/setup"
        );
        let sysroot = PathBuf::from(output(rustc().args(["--print", "sysroot"]))?);
        Ok(Self {
            release: field(&about, "release")?.to_owned(),
            sysroot,
        })
    }

    /// The source of `core`, which is compiled for the kernel's target.
    ///
    /// # Errors
    ///
    /// rustup is missing or cannot download.
    pub(super) fn bring_rust_src(&self) -> Result<()> {
        if self
            .sysroot
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .is_file()
        {
            return Ok(());
        }
        eprintln!(
            "setup: adding the component rust-src to Rust {}",
            self.release
        );
        let mut rustup = Command::new("rustup");
        run(rustup
            .args(["component", "add", "rust-src"])
            .current_dir(root()))
        .with_context(|| {
            format!(
                "rust-src is missing in {}; remedy: `rustup component add rust-src`",
                self.sysroot.display()
            )
        })
    }

    /// The LLVM inside the tool chain: the one library that always matches what `rustc` emits.
    ///
    /// # Errors
    ///
    /// The tool chain has none, as when LLVM is linked statically.
    pub(super) fn llvm(&self) -> Result<PathBuf> {
        let lib = self.sysroot.join("lib");
        let entries =
            fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
        let start = format!("libLLVM.so.{LLVM}");
        let found = entries.flatten().map(|entry| entry.path()).find(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(&start))
        });
        match found {
            Some(path) => Ok(path),
            None => bail!(
                "no {start}* in {}: use a tool chain from rustup",
                lib.display()
            ),
        }
    }
}

fn rustc() -> Command {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(root());
    rustc
}

fn field<'a>(about: &'a str, name: &str) -> Result<&'a str> {
    about
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .with_context(|| format!("`rustc -vV` does not say its {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_llvm_is_read_from_what_rustc_says() {
        let about = "rustc 1.95.0 (x)\nrelease: 1.95.0\nLLVM version: 22.1.2";
        assert_eq!(field(about, "LLVM version").unwrap(), "22.1.2");
        assert_eq!(field(about, "release").unwrap(), "1.95.0");
        assert!(field(about, "colour").is_err());
    }
}
