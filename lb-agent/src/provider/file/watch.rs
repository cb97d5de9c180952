//! Reads the services file, or a directory of them, on a change, and now and then in case a change was missed.

use std::{
    ffi::{OsStr, OsString},
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until},
};

use crate::provider::{Asked, ProviderId, Update};

use super::reading::{Reader, listed};

/// Times of the watcher.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timings {
    /// Silence after a change before the file is read: editors write in several steps.
    pub(super) debounce: Duration,
    /// Longest time from the first change to reading.
    pub(super) debounce_at_most: Duration,
    /// Between readings without any change.
    pub(super) resync: Duration,
    /// The same, while the file cannot be read or watched.
    pub(super) retry: Duration,
}

/// The directories that are watched: a file's own, since editors and config maps replace files
/// rather than write them, and the one it really is in; a directory itself, and where its files really are.
#[derive(Default)]
struct Watching {
    dirs: Vec<Dir>,
    _watcher: Option<RecommendedWatcher>,
}

/// File names whose change concerns us.
enum Names {
    /// A directory of services is ours alone.
    Any,
    /// The directory of a single file may be a busy one.
    These(Vec<OsString>),
}

/// A directory by path and identity: a new one under an old path needs a new watch.
#[derive(PartialEq, Eq)]
struct Dir {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Reads `path` for ever; ends when `tx` is closed.
pub(super) async fn watch(
    path: &Path,
    tx: &mpsc::Sender<Update>,
    mut asked: Asked,
    timings: Timings,
) {
    let provider = ProviderId::new("file", path.display());
    let changed = Arc::new(Notify::new());
    let mut watching = Watching::default();
    let mut reader = Reader::new(path, provider.clone());
    loop {
        // Before reading, so that a change in between is noticed.
        let watched = watching.refresh(path, &changed);
        let outcome = reader.read().await;
        let wait = if watched && outcome.is_ok() {
            timings.resync
        } else {
            timings.retry
        };
        let update = Update {
            provider: provider.clone(),
            at: SystemTime::now(),
            outcome,
        };
        if tx.send(update).await.is_err() {
            return;
        }
        tokio::select! {
            () = tx.closed() => return,
            () = changed.notified() => settle(&changed, timings).await,
            () = asked.asked() => {}
            () = sleep(wait) => {}
        }
    }
}

/// Waits until the changes pause.
async fn settle(changed: &Notify, timings: Timings) {
    let latest = Instant::now() + timings.debounce_at_most;
    loop {
        tokio::select! {
            () = changed.notified() => {}
            () = sleep(timings.debounce) => return,
            () = sleep_until(latest) => return,
        }
    }
}

// === impl Timings ===

impl Default for Timings {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(200),
            debounce_at_most: Duration::from_secs(1),
            resync: Duration::from_secs(30),
            retry: Duration::from_secs(2),
        }
    }
}

// === impl Watching ===

impl Watching {
    /// Watches the directories that `path` leads through now; `false` if that is not possible.
    fn refresh(&mut self, path: &Path, changed: &Arc<Notify>) -> bool {
        let dirs = Dir::of(path);
        if dirs == self.dirs {
            return !dirs.is_empty();
        }
        *self = Self::default();
        let result = Self::start(path, &dirs, changed);
        match result {
            Ok(watcher) => {
                *self = Self {
                    dirs,
                    _watcher: Some(watcher),
                }
            }
            Err(why) => {
                tracing::warn!(%why, path = %path.display(), "cannot watch; polling instead")
            }
        }
        !self.dirs.is_empty()
    }

    fn start(
        path: &Path,
        dirs: &[Dir],
        changed: &Arc<Notify>,
    ) -> notify::Result<RecommendedWatcher> {
        let changed = Arc::clone(changed);
        let names = Names::of(path);
        // Reading the file is itself an access, so accesses are no news.
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if event.is_ok_and(|event| !event.kind.is_access() && names.concern(&event.paths)) {
                    changed.notify_one();
                }
            })?;
        for dir in dirs {
            watcher.watch(&dir.path, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }
}

// === impl Names ===

impl Names {
    fn of(path: &Path) -> Self {
        if path.is_dir() {
            return Self::Any;
        }
        let real = std::fs::canonicalize(path).ok();
        let names = [Some(path), real.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(Path::file_name);
        Self::These(names.map(OsStr::to_owned).collect())
    }

    /// Whether a change of these paths may be one of the file: itself, what it links to, the `..data` link
    /// through which Kubernetes swaps a config map, or the directory as a whole.
    fn concern(&self, paths: &[PathBuf]) -> bool {
        let Self::These(own) = self else { return true };
        paths.is_empty()
            || paths
                .iter()
                .filter_map(|path| path.file_name())
                .any(|name| {
                    own.iter().any(|own| own == name) || name.as_encoded_bytes().starts_with(b"..")
                })
    }
}

// === impl Dir ===

impl Dir {
    /// Where a change of `path`, or of a file in it, can be seen.
    fn of(path: &Path) -> Vec<Self> {
        if !path.is_dir() {
            return Self::all(&parents(path));
        }
        let files = listed(path).map(|(files, _)| files).unwrap_or_default();
        let mut places = vec![path.to_owned()];
        places.extend(files.iter().flat_map(|file| parents(file)));
        Self::all(&places)
    }

    /// Each of them once.
    fn all(places: &[PathBuf]) -> Vec<Self> {
        let mut dirs: Vec<Self> = Vec::new();
        for parent in places {
            if let Ok(dir) = std::fs::metadata(parent).map(|metadata| Self::new(parent, &metadata))
                && !dirs
                    .iter()
                    .any(|known| known.inode == dir.inode && known.device == dir.device)
            {
                dirs.push(dir);
            }
        }
        dirs
    }

    fn new(path: &Path, metadata: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// The directory that a path names its file in, and the one that it really is in.
fn parents(path: &Path) -> Vec<PathBuf> {
    let real = std::fs::canonicalize(path).ok();
    let both = [Some(path), real.as_deref()].into_iter().flatten();
    let parents = both.filter_map(Path::parent).map(|parent| {
        if parent.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            parent.to_owned()
        }
    });
    parents.collect()
}
