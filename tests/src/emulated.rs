//! A machine with a kernel of its own, emulated by qemu. It has no card and no disk: all its files are in its memory
//! from the start, and what it prints comes by a serial line.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::lab::{
    exec::tool,
    programs::{agent, program},
    require,
};

/// The first process, and what it runs each test program by.
const SCRIPTS: [(&str, &str); 2] = [
    ("init", include_str!("../kernel/init.sh")),
    ("each", include_str!("../kernel/each.sh")),
];

/// Folders of the kernel's modules that are there; it loads them by itself, when something asks for what they do.
const MODULES: [&str; 4] = ["net", "drivers/net", "lib", "crypto"];

/// Packs a folder as the kernel unpacks it (initramfs).
const PACK: &str = "cd \"$1\" && find . | cpio --quiet --create --format=newc >\"$2\"";

/// Two processors of a plain kind: what they lack need not be emulated.
const MACHINE: [&str; 20] = [
    "-machine",
    "q35",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "qemu64",
    "-smp",
    "2",
    "-m",
    "2G",
    "-nodefaults",
    "-no-reboot",
    "-display",
    "none",
    "-monitor",
    "none",
    "-serial",
    "stdio",
    "-append",
    COMMAND_LINE,
];

/// `rep movs` and `rep stos` are emulated step by step; a kernel that does not use them for its own copies verifies
/// programs in half the time.
const COMMAND_LINE: &str =
    "console=ttyS0 loglevel=1 panic=-1 mitigations=off clearcpuid=rep_good,erms,fsrm";

/// Lines of what it printed that are shown if it never turns itself off.
const TAIL: usize = 60;

/// A machine that was not turned on yet; its files go with it.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
    kernel: PathBuf,
    tests: Vec<String>,
}

/// What became of a test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Without what cargo adds.
    pub name: String,
    /// Its exit code; above 128 a signal ended it.
    pub code: i32,
    /// How many of its tests passed.
    pub passed: u32,
}

// === impl Machine ===

impl Machine {
    /// With the kernel of an unpacked Debian package, and what the lab needs; `dir` is its own.
    ///
    /// # Errors
    ///
    /// What is missing here, or cannot be written.
    pub fn new(package: &Path, dir: PathBuf) -> Result<Self> {
        let kernel = only(&package.join("boot"), "vmlinuz-")
            .context("no kernel; `cargo xtask setup --test` fetches it")?;
        let machine = Self {
            dir,
            kernel,
            tests: Vec::new(),
        };
        // What a run left that was killed.
        let _ = fs::remove_dir_all(&machine.dir);
        let root = machine.root();
        for folder in [
            "bin", "dev", "etc", "proc", "programs", "run", "sbin", "sys", "tmp", "usr/bin",
        ] {
            fs::create_dir_all(root.join(folder))
                .with_context(|| format!("cannot write to {}", root.display()))?;
        }
        // The lab covers them with those of its hosts, if they are there.
        for file in ["resolv.conf", "nsswitch.conf"] {
            fs::write(root.join("etc").join(file), "")?;
        }
        for (name, script) in SCRIPTS {
            fs::write(root.join(name), script)?;
            fs::set_permissions(root.join(name), Permissions::from_mode(0o755))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox"))
            .context("no /bin/busybox: the package busybox-static is missing")?;
        symlink("/bin/busybox", root.join("sbin/modprobe"))?;
        machine.put_modules(package)?;
        let tools = require::TOOLS.iter().map(|(tool, _)| *tool);
        for name in tools.chain(["bash"]) {
            let found = require::find(name).with_context(|| format!("{name} is not installed"))?;
            machine.put(&found, &format!("usr/bin/{name}"))?;
        }
        machine.put(Path::new(&agent()?), "programs/lb-agent")?;
        for name in ["probe", "task-server"] {
            machine.put(Path::new(&program(name)?), &format!("programs/{name}"))?;
        }
        Ok(machine)
    }

    /// Adds a test program to those that it runs, in this order; gives its name.
    ///
    /// # Errors
    ///
    /// It cannot be copied.
    pub fn add_test(&mut self, built: &Path) -> Result<String> {
        let file = built.file_name().and_then(|name| name.to_str());
        // Cargo adds a hash.
        let name = file.and_then(|file| Some(file.rsplit_once('-')?.0));
        let name = name.with_context(|| format!("{} is no test program", built.display()))?;
        self.put(built, &format!("programs/{name}"))?;
        self.tests.push(name.to_owned());
        Ok(name.to_owned())
    }

    /// Turns it on and gives what it printed, once it is off.
    ///
    /// # Errors
    ///
    /// It is not off `within` that time; then it is taken away.
    pub fn run(&self, within: Duration) -> Result<String> {
        let (root, files) = (self.root(), self.dir.join("files.cpio"));
        fs::write(root.join("programs/list"), self.tests.join("\n") + "\n")?;
        tool(&["sh", "-c", PACK, "sh", text(&root)?, text(&files)?])?;
        // Not a wait of ours: it has to end even if this process is killed.
        let output = Command::new("timeout")
            .args(["--foreground", "--kill-after=5"])
            .arg(within.as_secs().to_string())
            .arg("qemu-system-x86_64")
            .args(MACHINE)
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&files)
            .stdin(Stdio::null())
            .output()
            .context("cannot run timeout, of coreutils")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let lines: Vec<_> = printed.lines().collect();
            bail!(
                "the machine did not turn itself off within {within:?} ({}): {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr),
                lines[lines.len().saturating_sub(TAIL)..].join("\n")
            );
        }
        Ok(printed)
    }

    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Puts a program there, without its symbols, and the libraries that it loads.
    fn put(&self, program: &Path, at: &str) -> Result<()> {
        let (root, program) = (self.root(), text(program)?);
        tool(&["strip", "-o", text(&root.join(at))?, program])?;
        let listed = tool(&["ldd", program])?;
        let library = |line: &str| {
            let mut words = line.split_whitespace();
            words.find(|word| word.starts_with('/')).map(str::to_owned)
        };
        for library in listed.lines().filter_map(library) {
            let at = root.join(library.trim_start_matches('/'));
            if at.exists() {
                continue;
            }
            fs::create_dir_all(at.parent().unwrap_or(&root))?;
            fs::copy(&library, &at).with_context(|| format!("cannot copy {library}"))?;
        }
        Ok(())
    }

    fn put_modules(&self, package: &Path) -> Result<()> {
        let root = self.root();
        let all = only(&package.join("lib/modules"), "")?;
        let release = all.file_name().context("a folder without a name")?;
        let there = root.join("lib/modules").join(release);
        for folder in MODULES {
            let at = there.join("kernel").join(folder);
            fs::create_dir_all(at.parent().unwrap_or(&there))?;
            let from = all.join("kernel").join(folder);
            tool(&["cp", "-r", text(&from)?, text(&at)?])?;
        }
        for file in ["modules.builtin", "modules.order"] {
            fs::copy(all.join(file), there.join(file))?;
        }
        let release = text(Path::new(release))?;
        tool(&["busybox", "depmod", "-b", text(&root)?, release]).map(drop)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// What became of each test program, in the order in which they ended.
pub fn ended(printed: &str) -> Vec<Ended> {
    printed.lines().filter_map(ended_in).collect()
}

/// As `each.sh` says it: `== NAME ended with CODE after SECONDS s: test result: ok. PASSED passed; ...`.
fn ended_in(line: &str) -> Option<Ended> {
    let (name, rest) = line.strip_prefix("== ")?.split_once(" ended with ")?;
    let passed = || {
        let (before, _) = rest.split_once(" passed;")?;
        before.rsplit(' ').next()?.parse().ok()
    };
    Some(Ended {
        name: name.to_owned(),
        code: rest.split(' ').next()?.parse().ok()?,
        passed: passed().unwrap_or(0),
    })
}

/// The one entry of a folder whose name begins so.
fn only(dir: &Path, begin: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let is_it = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(begin))
    };
    let mut found = entries.flatten().map(|entry| entry.path()).filter(is_it);
    let first = found.next();
    ensure!(
        found.next().is_none(),
        "{} holds more than one",
        dir.display()
    );
    first.with_context(|| format!("{} holds no {begin}*", dir.display()))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_programs_is_read_from_what_the_machine_printed() {
        let printed = "== Linux 6.1.0-56-cloud-amd64\r\n\
             == packet_nat ended with 0 after 34 s: test result: ok. 68 passed; 0 failed; 0 ignored\r\n\
             == lab_orphans ended with 137 after 400 s: \r\n\
             == off after 402 s\r\n";
        let is = |name: &str, code, passed| Ended {
            name: name.into(),
            code,
            passed,
        };
        let wanted = [is("packet_nat", 0, 68), is("lab_orphans", 137, 0)];
        assert_eq!(ended(printed), wanted);
    }
}
