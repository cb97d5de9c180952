//! Processes that live in a host of the lab and end with it.

use std::{
    ffi::CString,
    fs::{self, File},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    sys::{Entry, go_there},
    wait::wait_for,
};

/// Where a process is to live.
#[derive(Debug)]
pub struct Place<'a> {
    /// Handle of the network namespace.
    pub netns: &'a Path,
    /// Absolute path of the cgroup.
    pub cgroup: &'a Path,
    /// (file, where the process is to see it).
    pub binds: &'a [(PathBuf, PathBuf)],
    /// Where stdout and stderr go, as `NAME.out` and `NAME.err`.
    pub logs: &'a Path,
}

/// A running process; killed and awaited on drop. If that happens while a test fails, its output is shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

/// What a process that ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to stdout; what is not UTF-8 is replaced.
    pub stdout: String,
    /// All it wrote to stderr; what is not UTF-8 is replaced.
    pub stderr: String,
}

// === impl Process ===

impl Process {
    /// Starts `argv` at `place`; `name` is unique there.
    ///
    /// # Errors
    ///
    /// The place cannot be entered or the program not be run.
    pub fn start(name: &str, argv: &[&str], place: &Place<'_>) -> Result<Self> {
        let (program, args) = argv.split_first().context("no program given")?;
        let out = place.logs.join(format!("{name}.out"));
        let err = place.logs.join(format!("{name}.err"));
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&out).with_context(|| format!("cannot write {}", out.display()))?)
            .stderr(File::create(&err)?);
        go_there(&mut command, place.open()?);
        let child = spawn(command).with_context(|| format!("cannot start `{}`", argv.join(" ")))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            out,
            err,
        })
    }

    /// The process's pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it wrote to stdout so far.
    pub fn stdout(&self) -> String {
        read(&self.out)
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        read(&self.err)
    }

    /// Sends a signal; nothing happens if the process has ended.
    ///
    /// # Errors
    ///
    /// The kernel refuses, which it does not for a child of root.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .context("pid out of range")?;
        kill_process(pid, signal)
            .with_context(|| format!("cannot send {signal:?} to {}", self.name))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    ///
    /// It has not ended `within` that time; then it is killed.
    pub fn finish(mut self, within: Duration) -> Result<Finished> {
        let status = wait_for(&format!("{} ends", self.name), within, || {
            self.child.try_wait().ok().flatten()
        })
        .map_err(|late| {
            anyhow!(
                "{late}; stdout: {}; stderr: {}",
                self.stdout(),
                self.stderr()
            )
        })?;
        Ok(Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An ended process cannot be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            for (stream, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
                if !text.trim().is_empty() {
                    eprintln!("--- {stream} of {} ---\n{}", self.name, tail(&text));
                }
            }
        }
    }
}

// === impl Place ===

impl Place<'_> {
    fn open(&self) -> Result<Entry> {
        let Self {
            netns,
            cgroup,
            binds,
            logs: _,
        } = self;
        let procs = cgroup.join("cgroup.procs");
        Ok(Entry {
            netns: File::open(netns).with_context(|| format!("cannot open {}", netns.display()))?,
            cgroup_procs: File::options()
                .write(true)
                .open(&procs)
                .with_context(|| format!("cannot open {}", procs.display()))?,
            binds: binds
                .iter()
                .map(|(file, at)| Ok((c_path(file)?, c_path(at)?)))
                .collect::<Result<_>>()?,
        })
    }
}

// === impl Finished ===

impl Finished {
    /// Its stdout if it ended with exit code 0.
    ///
    /// # Errors
    ///
    /// Another exit code or a signal; the error holds stdout and stderr.
    pub fn ok(self) -> Result<String> {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        if status.success() {
            return Ok(stdout);
        }
        Err(anyhow!(
            "{status}; stdout: {}; stderr: {}",
            stdout.trim(),
            stderr.trim()
        ))
    }
}

/// Spawns from a thread that lasts as long as this process: the death signal of a child is tied to the
/// thread that forked it (`PR_SET_PDEATHSIG`), and test threads come and go.
fn spawn(command: Command) -> Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    spawner
        .send((command, reply))
        .map_err(|_| anyhow!("the spawning thread is gone"))?;
    Ok(answer.recv().context("the spawning thread is gone")??)
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("a path holds a NUL byte")
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The last lines: what a failing test needs, and not a flood.
fn tail(text: &str) -> String {
    const LINES: usize = 60;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
