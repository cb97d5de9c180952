//! What a services file says now, or a directory of them.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::parse;
use crate::provider::{Problem, ProviderId, Snapshot, documents::Documents};

/// More than this is no services file, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// More files than this are no directory of services.
const MAX_FILES: usize = 10_000;
/// What the names of the files of a directory end with.
const ENDING: &str = "yaml";

/// Reads a path again and again.
pub(super) struct Reader {
    path: PathBuf,
    provider: ProviderId,
    /// Of a single file: its text, and what came of it.
    last: Option<(String, Outcome)>,
    /// Of a directory.
    documents: Documents,
    /// What was told last of a directory.
    told: Option<Arc<Snapshot>>,
    last_failure: Option<String>,
}

type Outcome = Result<Arc<Snapshot>, String>;

// === impl Reader ===

impl Reader {
    /// Nothing is read yet.
    pub(super) fn new(path: &Path, provider: ProviderId) -> Self {
        Self {
            path: path.to_owned(),
            provider,
            last: None,
            documents: Documents::default(),
            told: None,
            last_failure: None,
        }
    }

    /// The state now; what is new of it is in the log.
    pub(super) async fn read(&mut self) -> Outcome {
        let outcome = if self.path.is_dir() {
            self.read_dir().await
        } else {
            self.read_file().await
        };
        self.last_failure = outcome.as_ref().err().cloned();
        outcome
    }

    async fn read_file(&mut self) -> Outcome {
        match (text_of(&self.path).await, self.last.take()) {
            (Ok(text), Some((before, outcome))) if before == text => {
                self.last = Some((text, outcome.clone()));
                outcome
            }
            (Ok(text), _) => {
                let outcome = parse(&text, &self.path).map(Arc::new);
                self.log(&outcome);
                self.last = Some((text, outcome.clone()));
                outcome
            }
            (Err(why), before) => {
                self.last = before;
                self.warn(&why);
                Err(why)
            }
        }
    }

    async fn read_dir(&mut self) -> Outcome {
        let (files, strange) = match listed(&self.path) {
            Ok(found) => found,
            Err(why) => {
                self.warn(&why);
                return Err(why);
            }
        };
        let name = |path: &PathBuf| path.display().to_string();
        self.documents.keep_only(&files.iter().map(name).collect());
        for file in &files {
            let read = text_of(file).await;
            self.documents.put(&name(file), read);
        }
        let mut snapshot = self.documents.snapshot();
        snapshot.problems.extend(strange);
        snapshot.problems.sort();
        let outcome = match self.told.take() {
            Some(told) if *told == snapshot => Ok(told),
            _ => {
                let outcome = Ok(Arc::new(snapshot));
                self.log(&outcome);
                outcome
            }
        };
        self.told = outcome.as_ref().ok().cloned();
        outcome
    }

    fn log(&self, outcome: &Outcome) {
        let provider = &self.provider;
        match outcome {
            Ok(state) => {
                // What was left out is told when the catalog takes the state.
                let (pools, left_out) = (state.pools.len(), state.problems.len());
                tracing::info!(%provider, pools, left_out, "services read");
            }
            Err(why) => tracing::error!(%provider, "{why}; the services stay as they were"),
        }
    }

    fn warn(&self, why: &str) {
        if self.last_failure.as_deref() != Some(why) {
            tracing::warn!(provider = %self.provider, "{why}; the services stay as they were");
        }
    }
}

/// The files of a directory that count, in order, and what is strange about it.
///
/// # Errors
/// It cannot be read, as one sentence.
pub(super) fn listed(dir: &Path) -> Result<(BTreeSet<PathBuf>, Vec<Problem>), String> {
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", dir.display());
    let (mut files, mut strange) = (BTreeSet::new(), Vec::new());
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let ending = path.extension().and_then(|ending| ending.to_str());
        match ending {
            _ if hidden || path.is_dir() => {}
            Some(ENDING) => _ = files.insert(path),
            Some("yml" | "json") => strange.push(Problem {
                subject: path.display().to_string().into(),
                reason: format!("the file is not read: its name does not end in .{ENDING}"),
            }),
            _ => {}
        }
        if files.len() > MAX_FILES {
            return Err(format!(
                "{} holds more than {MAX_FILES} files",
                dir.display()
            ));
        }
    }
    Ok((files, strange))
}

/// The whole of a file.
///
/// # Errors
/// It cannot be read, as one sentence.
pub(super) fn text(path: &Path) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!(
            "cannot read {}: it is longer than {MAX_FILE} bytes",
            path.display()
        ));
    }
    String::from_utf8(bytes).map_err(|e| format!("{}: not UTF-8: {e}", path.display()))
}

/// As [`text`], without a wait of the caller's thread.
async fn text_of(path: &Path) -> Result<String, String> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || text(&owned)).await;
    read.unwrap_or_else(|error| Err(format!("cannot read {}: {error}", path.display())))
}
