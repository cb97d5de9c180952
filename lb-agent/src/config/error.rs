//! What is wrong with a setting, in one sentence that says where it was set.

use std::{fmt, path::PathBuf};

use super::keys::Key;

/// A setting that cannot be used; displayed as one sentence. The agent exits with code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct ConfigError {
    place: Place,
    reason: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A flag, without its dashes.
    Flag(&'static str),
    /// An environment variable.
    Env(String),
    /// A line of the config file, counted from 1; `key` is empty where the line has none.
    File {
        path: PathBuf,
        line: usize,
        key: String,
    },
    /// The config file as a whole.
    WholeFile(PathBuf),
    /// Nobody set it.
    Default(&'static str),
}

impl ConfigError {
    pub(crate) fn new(place: Place, reason: impl Into<String>) -> Self {
        Self {
            place,
            reason: reason.into(),
        }
    }
}

impl Place {
    /// A stronger place overrides a weaker one.
    pub(crate) fn strength(&self) -> u8 {
        match self {
            Self::Flag(_) => 3,
            Self::Env(_) => 2,
            Self::File { .. } | Self::WholeFile(_) => 1,
            Self::Default(_) => 0,
        }
    }

    pub(crate) fn is_default(&self) -> bool {
        matches!(self, Self::Default(_))
    }

    pub(crate) fn flag(key: &'static Key) -> Self {
        Self::Flag(key.name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Default(name) => write!(f, "--{name}"),
            Self::Env(name) => f.write_str(name),
            Self::File { path, line, key } if key.is_empty() => {
                write!(f, "{}, line {line}", path.display())
            }
            Self::File { path, line, key } => write!(f, "{}, line {line}, {key}", path.display()),
            Self::WholeFile(path) => write!(f, "{}", path.display()),
        }
    }
}
