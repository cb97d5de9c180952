//! A real etcd of one member in a lab host.

pub mod pair;

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::lab::{Host, Process, exec::tool, wait_until};

/// How long it may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running etcd; its data outlives a kill, and goes with the host.
#[derive(Debug)]
pub struct Etcd {
    argv: Vec<String>,
    url: String,
    /// What the client needs besides.
    client: Vec<String>,
    daemon: Option<Process>,
}

/// Certificates for an etcd that talks to nobody without one. Made by openssl.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority.
    pub ca: PathBuf,
    /// The certificate of all others, and its key.
    pub certificate: PathBuf,
    /// That key.
    pub key: PathBuf,
}

// === impl Etcd ===

impl Etcd {
    /// Prepares one that is to listen at `at` of `host`; with certificates it takes only clients that have one.
    pub fn new(host: &Host, at: SocketAddr, certificates: Option<&Certificates>) -> Self {
        let scheme = if certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let url = format!("{scheme}://{at}");
        let dir = host.dir().join(format!("etcd-{}", at.port()));
        let peer = format!("http://127.0.0.1:{}", at.port() + 1);
        let mut argv: Vec<String> = [
            "etcd",
            "--name",
            "lab",
            "--data-dir",
            &dir.display().to_string(),
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("lab={peer}"),
            // Quick to come back, and it does not wait for this machine's disk.
            "--heartbeat-interval",
            "50",
            "--election-timeout",
            "250",
        ]
        .map(str::to_owned)
        .into();
        let mut client = vec![format!("--endpoints={url}")];
        if let Some(Certificates {
            ca,
            certificate,
            key,
        }) = certificates
        {
            let [ca, certificate, key] = [ca, certificate, key].map(|path| path.display());
            argv.extend([
                format!("--cert-file={certificate}"),
                format!("--key-file={key}"),
                format!("--trusted-ca-file={ca}"),
                "--client-cert-auth".to_owned(),
            ]);
            client.extend([
                format!("--cacert={ca}"),
                format!("--cert={certificate}"),
                format!("--key={key}"),
            ]);
        }
        Self {
            argv,
            url,
            client,
            daemon: None,
        }
    }

    /// Where it is, for `--etcd`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts it, or starts it again with the data that it had.
    ///
    /// # Errors
    ///
    /// It does not come up; what it wrote.
    pub fn start(&mut self, host: &Host) -> Result<()> {
        let argv: Vec<&str> = self.argv.iter().map(String::as_str).collect();
        let mut daemon = host.start("etcd", &argv)?;
        let up = wait_until("etcd is up", PATIENCE, || {
            daemon.has_ended() || self.client(host, &["endpoint", "health"]).is_ok()
        });
        ensure!(up.is_ok() && !daemon.has_ended(), "{}", daemon.stderr());
        self.daemon = Some(daemon);
        Ok(())
    }

    /// SIGKILL, as a crash would.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("etcd does not run")?;
        daemon.signal(Signal::KILL)?;
        wait_until("etcd is gone", PATIENCE, || daemon.has_ended())
    }

    /// Stops it in its tracks, or lets it go on: connections stay and nobody answers.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn freeze(&mut self, frozen: bool) -> Result<()> {
        let daemon = self.daemon.as_mut().context("etcd does not run")?;
        daemon.signal(if frozen { Signal::STOP } else { Signal::CONT })
    }

    /// Runs a command of etcdctl; what it prints.
    ///
    /// # Errors
    ///
    /// What it writes to stderr, where it fails.
    pub fn client(&self, host: &Host, words: &[&str]) -> Result<String> {
        let mut argv = vec!["etcdctl"];
        argv.extend(self.client.iter().map(String::as_str));
        argv.extend(words);
        host.run(&argv)?.ok()
    }

    /// Puts a key.
    ///
    /// # Errors
    ///
    /// As [`Etcd::client`].
    pub fn put(&self, host: &Host, key: &str, value: &str) -> Result<()> {
        self.client(host, &["put", key, "--", value]).map(drop)
    }

    /// What a key holds; empty if it is not there.
    ///
    /// # Errors
    ///
    /// As [`Etcd::client`].
    pub fn get(&self, host: &Host, key: &str) -> Result<String> {
        let held = self.client(host, &["get", "--print-value-only", key])?;
        Ok(held.trim().to_owned())
    }

    /// From now on everybody must log in; root has the password `root`. The client is root.
    ///
    /// # Errors
    ///
    /// As [`Etcd::client`].
    pub fn want_passwords(&mut self, host: &Host) -> Result<()> {
        self.client(host, &["user", "add", "root:root"])?;
        self.client(host, &["auth", "enable"])?;
        self.client.push("--user=root:root".to_owned());
        Ok(())
    }
}

// === impl Certificates ===

impl Certificates {
    /// Makes them in `dir`, for 127.0.0.1.
    ///
    /// # Errors
    ///
    /// openssl's.
    pub fn make(dir: &std::path::Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let path = |name: &str| dir.join(name);
        let text = |name: &str| path(name).display().to_string();
        let new_key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let openssl = |words: &[&str]| tool(&[&["openssl"], words].concat());
        let (ca, ca_key) = (text("ca.pem"), text("ca.key"));
        let words = [
            "req",
            "-x509",
            "-days",
            "2",
            "-subj",
            "/CN=lab ca",
            "-out",
            &ca,
            "-keyout",
            &ca_key,
        ];
        openssl(&[&words[..], &new_key].concat())?;
        let (request, key, cert) = (text("node.csr"), text("node.key"), text("node.pem"));
        let words = [
            "req", "-subj", "/CN=node", "-out", &request, "-keyout", &key,
        ];
        openssl(&[&words[..], &new_key].concat())?;
        fs::write(path("names"), "subjectAltName=IP:127.0.0.1\n")?;
        let names = text("names");
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-extfile",
            &names,
            "-out",
            &cert,
        ])?;
        Ok(Self {
            ca: ca.into(),
            certificate: cert.into(),
            key: key.into(),
        })
    }
}
