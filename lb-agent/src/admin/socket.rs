//! One agent per run directory: its lock, and the admin socket in it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

/// The socket's name in the run directory.
pub const SOCKET_NAME: &str = "admin.sock";
/// Locked while an agent or a purge is at work; holds its process id.
const LOCK_NAME: &str = "lock";
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// The run directory, claimed for this process until it is dropped. The lock goes with the process, however it ends.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

/// The admin socket: bound, mode 0600, not yet served.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    claim: Claim,
}

/// Removes the socket when the agent ends in good order, then gives up the lock.
#[derive(Debug)]
pub(super) struct Claim {
    socket: PathBuf,
    _run_dir: RunDir,
}

/// Why the run directory or the socket in it cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another agent or purge is at work.
    #[error("another lb-agent{} is at work on {}; stop it first, or give this one its own --run-dir", of_pid(*.pid), .run_dir.display())]
    Taken {
        /// The directory.
        run_dir: PathBuf,
        /// Of the other process, if it could be read.
        pid: Option<u32>,
    },
    /// Something that is not a socket stands where the socket should.
    #[error("{} is not a socket; move it away, or give lb-agent another --run-dir", .0.display())]
    NotASocket(PathBuf),
    /// The system said no.
    #[error("cannot {act} {}: {error}{}", .path.display(), remedy(.error))]
    Io {
        /// What was tried.
        act: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run this as root",
        _ => "",
    }
}

// === impl RunDir ===

impl RunDir {
    /// Makes the directory if it is missing, and claims it.
    ///
    /// # Errors
    /// When another process has it, or the system refuses.
    pub fn claim(path: &Path) -> Result<Self, ClaimError> {
        fs::create_dir_all(path).map_err(failed("create the run directory", path))?;
        let lock_path = path.join(LOCK_NAME);
        let open = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path);
        let mut lock = open.map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = lock
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                return Err(ClaimError::Taken {
                    run_dir: path.to_owned(),
                    pid,
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &lock_path)(error)),
        }
        let write_pid = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        write_pid.map_err(failed("write", &lock_path))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Binds the admin socket in it. A socket that a killed agent left behind is replaced; one that somebody
    /// answers on is not.
    ///
    /// # Errors
    /// When somebody listens there, something else stands there, or the system refuses.
    pub fn bind(self) -> Result<AdminSocket, ClaimError> {
        let path = self.path.join(SOCKET_NAME);
        clear(&path).map_err(|occupied| match occupied {
            Occupied::Listening => ClaimError::Taken {
                run_dir: self.path.clone(),
                pid: None,
            },
            Occupied::NotASocket => ClaimError::NotASocket(path.clone()),
            Occupied::Io { act, error } => failed(act, &path)(error),
        })?;
        let listener = listen(&path, BACKLOG).map_err(failed("listen on", &path))?;
        Ok(AdminSocket {
            listener,
            claim: Claim {
                socket: path,
                _run_dir: self,
            },
        })
    }
}

// === impl AdminSocket ===

impl AdminSocket {
    /// Claims the run directory and binds the socket in it: what an agent does at start.
    ///
    /// # Errors
    /// As [`RunDir::claim`] and [`RunDir::bind`].
    pub fn open(run_dir: &Path) -> Result<Self, ClaimError> {
        RunDir::claim(run_dir)?.bind()
    }

    /// For the runtime; the claim must live as long as the listener is served.
    pub(super) fn into_listener(self) -> io::Result<(tokio::net::UnixListener, Claim)> {
        Ok((
            tokio::net::UnixListener::from_std(self.listener)?,
            self.claim,
        ))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // If this fails the next start finds it stale and removes it.
        let _ = fs::remove_file(&self.socket);
    }
}

fn failed<'a>(act: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ClaimError + 'a {
    move |error| ClaimError::Io {
        act,
        path: path.to_owned(),
        error,
    }
}

fn of_pid(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// What keeps a socket from its place.
pub(super) enum Occupied {
    /// Somebody answers there.
    Listening,
    /// Something else stands there.
    NotASocket,
    /// The system said no.
    Io {
        /// What was tried.
        act: &'static str,
        /// Its answer.
        error: io::Error,
    },
}

/// Removes a socket that nobody answers on, as one who was killed leaves it behind.
pub(super) fn clear(path: &Path) -> Result<(), Occupied> {
    let io = |act| move |error| Occupied::Io { act, error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at")(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(Occupied::NotASocket),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Occupied::Listening),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io("remove the stale socket"))
        }
        Err(error) => Err(io("try")(error)),
    }
}

/// Listens on a socket of mode 0600; `backlog`: connections that may wait to be accepted.
pub(super) fn listen(path: &Path, backlog: i32) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before bind: the file then has this mode from its first moment (unix_bind in net/unix/af_unix.c).
    fchmod(socket.as_fd(), Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The other end of a connection as the kernel knows it, for the log; `place`: the socket.
pub(super) fn who(stream: &tokio::net::UnixStream, place: &str) -> String {
    match stream.peer_cred() {
        Ok(peer) => {
            let pid = peer.pid().map(|pid| format!(", process {pid}"));
            let pid = pid.unwrap_or_default();
            format!("user {}{pid} at {place}", peer.uid())
        }
        Err(_) => place.to_owned(),
    }
}
