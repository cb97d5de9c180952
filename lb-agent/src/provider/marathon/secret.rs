//! A password or token: given, or the first line of a file that somebody renews.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// What nobody else may see. A file is read again whenever its secret is needed, so that a renewed one counts
/// from the next request on.
#[derive(Clone)]
pub struct Secret(Source);

#[derive(Clone)]
enum Source {
    Given(String),
    File {
        path: PathBuf,
        last: Arc<Mutex<Last>>,
    },
}

/// The last time that the file could be read.
struct Last {
    secret: String,
    /// It was not the last time.
    stale: bool,
}

// === impl Secret ===

impl Secret {
    /// The first line of a file.
    ///
    /// # Errors
    /// It cannot be read now, or the line is empty.
    pub fn in_file(path: &Path) -> Result<Self, String> {
        let secret = first_line(path)?;
        Ok(Self(Source::File {
            path: path.to_owned(),
            last: Arc::new(Mutex::new(Last {
                secret,
                stale: false,
            })),
        }))
    }

    /// As it is now. While the file cannot be read, as it was before: it may just be being replaced.
    pub(in crate::provider) fn reveal(&self) -> String {
        let (path, last) = match &self.0 {
            Source::Given(secret) => return secret.clone(),
            Source::File { path, last } => (path, last),
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        match first_line(path) {
            Ok(secret) => {
                *last = Last {
                    secret,
                    stale: false,
                }
            }
            Err(error) if !last.stale => {
                tracing::warn!("{error}; what it held before is used");
                last.stale = true;
            }
            Err(_) => {}
        }
        last.secret.clone()
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(Source::Given(secret))
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        secret.to_owned().into()
    }
}

impl fmt::Debug for Secret {
    /// Never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

fn first_line(path: &Path) -> Result<String, String> {
    let text =
        fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(format!("the first line of {} is empty", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_file_counts_and_one_that_is_away_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(Secret::in_file(&path).unwrap_err().contains("cannot read"));
        fs::write(&path, "\n").unwrap();
        assert!(Secret::in_file(&path).unwrap_err().contains("is empty"));
        fs::write(&path, " one \nrest\n").unwrap();
        let secret = Secret::in_file(&path).unwrap();
        assert_eq!(secret.reveal(), "one");
        fs::write(&path, "two").unwrap();
        assert_eq!(secret.reveal(), "two");
        fs::remove_file(&path).unwrap();
        assert_eq!(secret.reveal(), "two");
        fs::write(&path, "three\n").unwrap();
        assert_eq!(secret.reveal(), "three");
    }
}
