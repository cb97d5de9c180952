//! Reads the services file when it changes, and now and then in case a change was missed.

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
    io::AsyncReadExt as _,
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until},
};

use crate::provider::{ProviderId, Snapshot, Update};

use super::parse;

/// More than this is no services file, in bytes.
const MAX_FILE: u64 = 16 << 20;

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

/// The directories that are watched: the file's own, since editors and config maps replace files
/// rather than write them, and the one it really is in.
#[derive(Default)]
struct Watching {
    dirs: Vec<Dir>,
    _watcher: Option<RecommendedWatcher>,
}

/// File names whose change concerns the services file; its directory may be a busy one.
struct Names(Vec<OsString>);

/// A directory by path and identity: a new one under an old path needs a new watch.
#[derive(PartialEq, Eq)]
struct Dir {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Reads `path` for ever; ends when `tx` is closed.
pub(super) async fn watch(path: &Path, tx: &mpsc::Sender<Update>, timings: Timings) {
    let provider = ProviderId::new("file", path.display());
    let changed = Arc::new(Notify::new());
    let mut watching = Watching::default();
    let mut last: Option<(String, Result<Arc<Snapshot>, String>)> = None;
    let mut last_failure = None;
    loop {
        // Before reading, so that a change in between is noticed.
        let watched = watching.refresh(path, &changed);
        let read = read(path).await;
        let at = SystemTime::now();
        let outcome = match (read, last.take()) {
            (Ok(text), Some((before, outcome))) if before == text => {
                last = Some((text, outcome.clone()));
                outcome
            }
            (Ok(text), _) => {
                let outcome = parse(&text, path).map(Arc::new);
                log(&provider, &outcome);
                last = Some((text, outcome.clone()));
                outcome
            }
            (Err(why), before) => {
                if last_failure.as_ref() != Some(&why) {
                    tracing::warn!(%provider, "{why}; the services stay as they were");
                }
                last = before;
                Err(why)
            }
        };
        last_failure = outcome.as_ref().err().cloned();
        let wait = if watched && outcome.is_ok() {
            timings.resync
        } else {
            timings.retry
        };
        let update = Update {
            provider: provider.clone(),
            at,
            outcome,
        };
        if tx.send(update).await.is_err() {
            return;
        }
        tokio::select! {
            () = tx.closed() => return,
            () = changed.notified() => settle(&changed, timings).await,
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

async fn read(path: &Path) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!(
            "cannot read {}: it is longer than {MAX_FILE} bytes",
            path.display()
        ));
    }
    String::from_utf8(bytes).map_err(|e| format!("{}: not UTF-8: {e}", path.display()))
}

fn log(provider: &ProviderId, outcome: &Result<Arc<Snapshot>, String>) {
    match outcome {
        Ok(state) => {
            // What was left out is told when the catalog takes the state.
            let (pools, left_out) = (state.pools.len(), state.problems.len());
            tracing::info!(%provider, pools, left_out, "services file read");
        }
        Err(why) => tracing::error!(%provider, "{why}; the services stay as they were"),
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
        let dirs = Dir::of_file(path);
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
        let real = std::fs::canonicalize(path).ok();
        let names = [Some(path), real.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(Path::file_name);
        Self(names.map(OsStr::to_owned).collect())
    }

    /// Whether a change of these paths may be one of the file: itself, what it links to, the `..data` link
    /// through which Kubernetes swaps a config map, or the directory as a whole.
    fn concern(&self, paths: &[PathBuf]) -> bool {
        paths.is_empty()
            || paths
                .iter()
                .filter_map(|path| path.file_name())
                .any(|name| {
                    self.0.iter().any(|own| own == name)
                        || name.as_encoded_bytes().starts_with(b"..")
                })
    }
}

// === impl Dir ===

impl Dir {
    fn of_file(path: &Path) -> Vec<Self> {
        let real = std::fs::canonicalize(path).ok();
        let parents = [Some(path), real.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(Path::parent);
        let mut dirs: Vec<Self> = Vec::new();
        for parent in parents {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
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
