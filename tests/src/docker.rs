//! A real Docker Engine in a lab host, with an image made here.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{Host, Process, exec::tool, wait_until};

/// The image: a page with the container's host name on port 80, by busybox.
pub const IMAGE: &str = "web:1";
/// How long the engine may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the managers of a Swarm listen.
const SWARM: u16 = 2377;
/// Programs of the image besides the shell.
const APPLETS: [&str; 8] = [
    "sh", "httpd", "hostname", "sleep", "nc", "wget", "touch", "test",
];

/// A running engine. Its containers end with it.
#[derive(Debug)]
pub struct Docker {
    dir: PathBuf,
    argv: Vec<String>,
    daemon: Option<Process>,
}

/// Where an engine's files and its socket are; the path is short enough for a socket, and known before the engine runs.
///
/// # Errors
///
/// It cannot be made.
pub fn place(name: &str) -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("lbd-{}-{name}", std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

// === impl Docker ===

impl Docker {
    /// Starts an engine on `host`, with its files in `dir`, and gives it the image.
    ///
    /// # Errors
    ///
    /// It does not start within a minute.
    pub fn start(host: &Host, dir: PathBuf) -> Result<Self> {
        Self::launch(host, dir, &["--live-restore"])
    }

    /// As [`Docker::start`]; containers have IPv6 addresses, too.
    ///
    /// # Errors
    ///
    /// As [`Docker::start`].
    pub fn start_dual(host: &Host, dir: PathBuf) -> Result<Self> {
        Self::launch(host, dir, &["--ipv6", "--fixed-cidr-v6", "fd00:d0c::/64"])
    }

    /// As [`Docker::start`], reached at `at`, too, in the clear.
    ///
    /// # Errors
    ///
    /// As [`Docker::start`].
    pub fn start_behind_tcp(host: &Host, dir: PathBuf, at: SocketAddr) -> Result<Self> {
        // Unless it is told that this is meant, it waits for a while.
        let listen = ["--tls=false", "--host", &format!("tcp://{at}")];
        Self::launch(host, dir, &listen)
    }

    /// As [`Docker::start`], as the manager of a Swarm, whose other nodes know it by `addr`.
    ///
    /// # Errors
    ///
    /// As [`Docker::start`].
    pub fn start_manager(host: &Host, dir: PathBuf, addr: &str) -> Result<Self> {
        // A Swarm wants an engine without live restore.
        let docker = Self::launch(host, dir, &[])?;
        let at = format!("{addr}:{SWARM}");
        let listen = ["--advertise-addr", addr, "--listen-addr", &at];
        docker.docker(&[&["swarm", "init"], &listen[..]].concat())?;
        Ok(docker)
    }

    /// As [`Docker::start`], as a worker at `addr` in the Swarm of `manager`, which is at `to`.
    ///
    /// # Errors
    ///
    /// As [`Docker::start`].
    pub fn start_worker(
        host: &Host,
        dir: PathBuf,
        addr: &str,
        (manager, to): (&Self, &str),
    ) -> Result<Self> {
        let docker = Self::launch(host, dir, &[])?;
        let token = manager.docker(&["swarm", "join-token", "--quiet", "worker"])?;
        let (at, to) = (format!("{addr}:{SWARM}"), format!("{to}:{SWARM}"));
        let listen = ["--advertise-addr", addr, "--listen-addr", &at];
        let join = ["swarm", "join", "--token", token.trim()];
        docker.docker(&[&join[..], &listen, &[&to]].concat())?;
        Ok(docker)
    }

    fn launch(host: &Host, dir: PathBuf, options: &[&str]) -> Result<Self> {
        let path = |name: &str| dir.join(name).display().to_string();
        // By default they are outside of the host's cgroup, which is what its agent serves.
        let below_the_host = host.cgroup().name()?;
        let argv = [
            "dockerd",
            "--cgroup-parent",
            &below_the_host,
            // systemd would have it among its own slices.
            "--exec-opt",
            "native.cgroupdriver=cgroupfs",
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("exec"),
            "--pidfile",
            &path("docker.pid"),
            "--host",
            &format!("unix://{}", path("docker.sock")),
        ];
        let mut docker = Self {
            argv: argv
                .iter()
                .chain(options)
                .map(|&word| word.to_owned())
                .collect(),
            dir: dir.clone(),
            daemon: None,
        };
        docker.run_daemon(host)?;
        docker.import()?;
        Ok(docker)
    }

    /// The engine's socket.
    pub fn socket(&self) -> String {
        format!("unix://{}/docker.sock", self.dir.display())
    }

    fn run_daemon(&mut self, host: &Host) -> Result<()> {
        let argv: Vec<&str> = self.argv.iter().map(String::as_str).collect();
        let mut daemon = host.start("dockerd", &argv)?;
        let up = wait_until("the engine is up", PATIENCE, || {
            daemon.has_ended() || self.docker(&["version"]).is_ok()
        });
        ensure!(up.is_ok() && !daemon.has_ended(), "{}", daemon.stderr());
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Sends the engine a signal, and nobody else.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let daemon = self.daemon.as_mut();
        daemon.context("no engine runs")?.signal(signal)
    }

    /// Kills the engine, not its containers, and starts it again.
    ///
    /// # Errors
    ///
    /// It does not come back.
    pub fn restart(&mut self, host: &Host) -> Result<()> {
        self.kill()?;
        self.revive(host)
    }

    /// Kills the engine, not its containers.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(Signal::KILL)?;
            wait_until("the engine is gone", PATIENCE, || daemon.has_ended())?;
        }
        Ok(())
    }

    /// Starts a killed engine again.
    ///
    /// # Errors
    ///
    /// It does not come back.
    pub fn revive(&mut self, host: &Host) -> Result<()> {
        // Killed, they leave behind what their next run would wait for.
        for stale in [
            "docker.pid",
            "exec/containerd/containerd.pid",
            "exec/containerd/containerd.sock",
        ] {
            let _ = fs::remove_file(self.dir.join(stale));
        }
        self.run_daemon(host)
    }

    /// Runs a command of the client; what it prints.
    ///
    /// # Errors
    ///
    /// What it writes to stderr, where it fails.
    pub fn docker(&self, words: &[&str]) -> Result<String> {
        let socket = self.socket();
        tool(&[&["timeout", "60", "docker", "--host", &socket], words].concat())
    }

    /// Posts to the engine's API, for what must not wait for the client to start.
    ///
    /// # Errors
    ///
    /// The engine says no.
    pub fn post(&self, path: &str) -> Result<()> {
        let socket = self.dir.join("docker.sock").display().to_string();
        let url = format!("http://docker{path}");
        tool(&[
            "curl",
            "--silent",
            "--fail",
            "--unix-socket",
            &socket,
            "--request",
            "POST",
            &url,
        ])
        .map(drop)
    }

    /// Listens to the signals that containers are sent: their names, and when each could be read.
    ///
    /// # Errors
    ///
    /// The engine does not answer.
    pub fn signals(&self) -> Result<Receiver<(String, Instant)>> {
        let filters = "%7B%22event%22%3A%5B%22kill%22%5D%7D";
        let mut stream = UnixStream::connect(self.dir.join("docker.sock"))?;
        write!(
            stream,
            "GET /events?filters={filters} HTTP/1.1\r\nHost: docker\r\n\r\n"
        )?;
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().context("no answer")??;
        ensure!(status.contains(" 200 "), "{status}");
        let (tx, rx) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let at = Instant::now();
                // Other lines are the head's, and lengths of chunks.
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(name) = event["Actor"]["Attributes"]["name"].as_str()
                    && tx.send((name.to_owned(), at)).is_err()
                {
                    return;
                }
            }
        });
        Ok(rx)
    }

    /// Runs a container of the image in the background, with these options of `docker run`.
    ///
    /// # Errors
    ///
    /// As [`Docker::docker`].
    pub fn run(&self, name: &str, options: &[&str]) -> Result<()> {
        let own = ["run", "--detach", "--name", name, "--hostname", name];
        self.docker(&[&own, options, &[IMAGE]].concat()).map(drop)
    }

    fn import(&self) -> Result<()> {
        let root = self.dir.join("image");
        fs::create_dir_all(root.join("bin"))?;
        for empty in ["www", "tmp", "etc"] {
            fs::create_dir_all(root.join(empty))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox"))
            .context("no /bin/busybox: the package busybox-static is missing")?;
        for applet in APPLETS {
            let link = root.join("bin").join(applet);
            if !link.exists() {
                std::os::unix::fs::symlink("busybox", link)?;
            }
        }
        let archive = self.dir.join("image.tar").display().to_string();
        tool(&[
            "tar",
            "-C",
            &root.display().to_string(),
            "-cf",
            &archive,
            ".",
        ])?;
        let serve =
            "CMD [\"/bin/sh\",\"-c\",\"hostname > /www/index.html; exec httpd -f -p 80 -h /www\"]";
        let changes = [
            "--change",
            "ENV PATH=/bin",
            "--change",
            "EXPOSE 80/tcp",
            "--change",
            serve,
        ];
        self.docker(&[&["import"], &changes[..], &[&archive, IMAGE]].concat())
            .map(drop)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let socket = self.socket();
        // A Swarm would make them anew.
        let all = format!(
            "docker --host {socket} swarm leave --force; docker --host {socket} ps -aq | xargs -r docker --host {socket} rm -f"
        );
        let _ = Command::new("sh").args(["-c", &all]).output();
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.signal(Signal::TERM);
            let _ = wait_until("the engine ends", PATIENCE, || daemon.has_ended());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
