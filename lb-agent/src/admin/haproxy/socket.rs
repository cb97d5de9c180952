//! The socket's file: where it is, and who may open it.

use std::{
    fs, io,
    os::unix::{fs::chown, net::UnixListener},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::Level;
use crate::admin::socket::{Occupied, clear, listen};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 32;

/// Where the socket is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file; `None`: `stats.sock` in the run directory.
    pub path: Option<PathBuf>,
    /// Its mode.
    pub mode: u32,
    /// The group that it is given to, by name or number.
    pub group: Option<String>,
    /// What may be done over it.
    pub level: Level,
}

/// Bound, not yet served; the file goes with it.
#[derive(Debug)]
pub struct StatsSocket {
    pub(super) listener: UnixListener,
    pub(super) level: Level,
    path: PathBuf,
}

impl Drop for StatsSocket {
    fn drop(&mut self) {
        // If this fails the next start finds it stale and removes it.
        let _ = fs::remove_file(&self.path);
    }
}

// === impl Place ===

impl Default for Place {
    fn default() -> Self {
        Self {
            path: None,
            mode: 0o600,
            group: None,
            level: Level::Admin,
        }
    }
}

// === impl StatsSocket ===

impl StatsSocket {
    /// Binds. A socket that nobody answers on is replaced.
    ///
    /// # Errors
    ///
    /// Somebody listens there, something else stands there, or the system refuses.
    pub fn open(place: &Place, run_dir: &Path) -> Result<Self> {
        let path = place.path.clone();
        let path = path.unwrap_or_else(|| run_dir.join("stats.sock"));
        clear(&path).map_err(|occupied| in_the_way(occupied, &path))?;
        let listener = listen(&path, BACKLOG).with_context(|| {
            format!(
                "cannot listen on {}; --stats-socket names another path, --stats-socket none turns it off",
                path.display()
            )
        })?;
        let bound = Self {
            listener,
            level: place.level,
            path,
        };
        if let Some(group) = &place.group {
            give_to(&bound.path, group)?;
        }
        // The group first: before that, others must not get in.
        let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(place.mode);
        fs::set_permissions(&bound.path, mode)
            .with_context(|| format!("cannot set the mode of {}", bound.path.display()))?;
        Ok(bound)
    }
}

fn give_to(path: &Path, group: &str) -> Result<()> {
    let number = match group.parse() {
        Ok(number) => number,
        Err(_) => number_of(&fs::read_to_string("/etc/group").unwrap_or_default(), group)
            .with_context(|| format!("--stats-socket: there is no group {group} in /etc/group"))?,
    };
    match chown(path, None, Some(number)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bail!(
            "cannot give {} to the group {group}: the agent keeps no right to give files away, so it must be in that \
             group itself (SupplementaryGroups={group} in its systemd unit)",
            path.display()
        ),
        done => {
            done.with_context(|| format!("cannot give {} to the group {group}", path.display()))
        }
    }
}

/// The number of a group, by group(5).
fn number_of(file: &str, group: &str) -> Option<u32> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn in_the_way(occupied: Occupied, path: &Path) -> anyhow::Error {
    let path = path.display();
    match occupied {
        Occupied::Listening => anyhow!(
            "another program listens on {path}; stop it first, or give lb-agent another --stats-socket"
        ),
        Occupied::NotASocket => {
            anyhow!("{path} is not a socket; move it away, or give lb-agent another --stats-socket")
        }
        Occupied::Io { act, error } => anyhow!(error).context(format!("cannot {act} {path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let file = "root:x:0:\nhaproxy:x:107:ann\nbroken\n";
        assert_eq!(number_of(file, "haproxy"), Some(107));
        assert_eq!(number_of(file, "broken"), None);
        assert_eq!(number_of(file, "none"), None);
    }

    #[test]
    fn the_socket_is_given_to_its_group_before_that_may_open_it() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let dir = tempfile::tempdir().unwrap();
        let own = rustix::process::getegid().as_raw();
        let place = |group: &str| Place {
            mode: 0o660,
            group: Some(group.to_owned()),
            ..Place::default()
        };
        let socket = StatsSocket::open(&place(&own.to_string()), dir.path()).unwrap();
        let made = fs::metadata(dir.path().join("stats.sock")).unwrap();
        assert_eq!(made.gid(), own);
        assert_eq!(made.permissions().mode() & 0o777, 0o660);
        drop(socket);
        let unknown = StatsSocket::open(&place("no-such-group"), dir.path()).unwrap_err();
        let told = unknown.to_string();
        assert!(told.contains("there is no group no-such-group"), "{told}");
        assert!(
            !dir.path().join("stats.sock").exists(),
            "nobody gets in by chance"
        );
    }

    #[test]
    fn the_socket_has_its_mode_and_replaces_only_what_nobody_answers_on() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            mode: 0o640,
            ..Place::default()
        };
        let first = StatsSocket::open(&place, dir.path()).unwrap();
        let path = dir.path().join("stats.sock");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        let taken = StatsSocket::open(&place, dir.path()).unwrap_err();
        assert!(
            format!("{taken:#}").contains("another program listens"),
            "{taken:#}"
        );
        drop(first);
        assert!(!path.exists());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a stale one");
        StatsSocket::open(&place, dir.path()).unwrap();
        fs::write(&path, "").unwrap();
        let other = StatsSocket::open(&place, dir.path()).unwrap_err();
        assert!(
            format!("{other:#}").contains("is not a socket"),
            "{other:#}"
        );
    }
}
