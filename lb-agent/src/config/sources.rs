//! Flag over environment over file over default.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    error::{ConfigError, Place},
    file::{self, FileLayer},
    flags::Flags,
    keys::{self, DEFAULT_CONFIG, DEFAULT_SERVICES, ENV_PREFIX, KEYS, Key, Preset},
    parse::word,
};

/// What the settings depend on besides the flags; passed in so that it can be tested.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) config: PathBuf,
    pub(crate) services: PathBuf,
}

/// The layers, not yet read as types.
pub(crate) struct Sources<'a> {
    flags: &'a Flags,
    env: &'a BTreeMap<String, String>,
    file: FileLayer,
}

/// The text of one setting, and who set it.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) values: Vec<String>,
    pub(crate) place: Place,
}

/// What Docker's own client goes by: variables that are nobody's settings but count for `--docker` alone.
pub(crate) const OF_DOCKER: [&str; 3] = ["DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];

// === impl Surroundings ===

impl Surroundings {
    /// Those of this process. A variable that is not UTF-8 is not one of ours.
    pub(crate) fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        };
        Self {
            env: std::env::vars_os()
                .filter_map(text)
                .filter(|(name, _)| {
                    name.starts_with(ENV_PREFIX) || OF_DOCKER.contains(&name.as_str())
                })
                .collect(),
            config: DEFAULT_CONFIG.into(),
            services: DEFAULT_SERVICES.into(),
        }
    }

    /// Variables with our prefix that no setting has. Kubernetes makes such ones for a service named
    /// `lb-agent`, hence a warning and not an error.
    pub(crate) fn unknown_variables(&self) -> Vec<String> {
        let known: BTreeSet<String> = KEYS.iter().map(|key| key.env()).collect();
        self.env
            .keys()
            .filter(|name| name.starts_with(ENV_PREFIX) && !known.contains(*name))
            .cloned()
            .collect()
    }
}

// === impl Sources ===

impl<'a> Sources<'a> {
    /// Reads the config file that flags or environment name, or the default one if it exists.
    pub(crate) fn read(flags: &'a Flags, around: &'a Surroundings) -> Result<Self, ConfigError> {
        let mut sources = Self {
            flags,
            env: &around.env,
            file: FileLayer::new(),
        };
        let given = sources.one(&keys::CONFIG, |text| word(text).map(PathBuf::from))?;
        sources.file = match given {
            Some(path) => file::read(&path)?,
            None if exists(&around.config) => file::read(&around.config)?,
            None => FileLayer::new(),
        };
        Ok(sources)
    }

    /// What one file says, and nothing else; `flags` and `env` are empty.
    pub(crate) fn of_file(
        path: &Path,
        flags: &'a Flags,
        env: &'a BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let file = file::read(path)?;
        Ok(Self { flags, env, file })
    }

    /// Where the file sets something that does not belong there.
    pub(crate) fn stranger(&self, belongs: impl Fn(&str) -> bool) -> Option<Place> {
        let mut strange = self.file.iter().filter(|(name, _)| !belongs(name));
        strange.next().map(|(_, (_, place))| place.clone())
    }

    /// The strongest layer that sets it; its values replace those of the weaker ones, lists included.
    pub(crate) fn get(&self, key: &'static Key) -> Setting {
        let (values, place) = if let Some(values) = self.flags.get(key) {
            (values.to_vec(), Place::flag(key))
        } else if let Some(value) = self
            .env
            .get(&key.env())
            .filter(|value| !value.trim().is_empty())
        {
            (vec![value.clone()], Place::Env(key.env()))
        } else if let Some((values, place)) = self.file.get(key.name) {
            (values.clone(), place.clone())
        } else {
            let preset = match key.default {
                Preset::Text(text) => vec![text.to_owned()],
                Preset::Unset | Preset::Words(_) => Vec::new(),
            };
            (preset, Place::Default(key.name))
        };
        let values = if key.many {
            values
                .iter()
                .flat_map(|value| split(value, key.lines))
                .collect()
        } else {
            values
        };
        Setting { values, place }
    }

    /// What an environment variable says that is no setting of ours, if anything.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let value = self.env.get(name)?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// The value of a setting that takes one, read by `parse`; `None` if it has none.
    pub(crate) fn one<T>(
        &self,
        key: &'static Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Setting { values, place } = self.get(key);
        values
            .last()
            .map(|value| parse(value.trim()))
            .transpose()
            .map_err(|reason| ConfigError::new(place, reason))
    }

    /// As [`Self::one`], for a setting that has a default.
    pub(crate) fn preset<T>(
        &self,
        key: &'static Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let missing = || ConfigError::new(Place::Default(key.name), "must be given");
        self.one(key, parse)?.ok_or_else(missing)
    }

    /// The values of a repeatable setting in the order given, each once.
    pub(crate) fn many<T: PartialEq>(
        &self,
        key: &'static Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let Setting { values, place } = self.get(key);
        let mut all = Vec::with_capacity(values.len());
        for value in &values {
            let value = parse(value).map_err(|reason| ConfigError::new(place.clone(), reason))?;
            if !all.contains(&value) {
                all.push(value);
            }
        }
        Ok(all)
    }

    /// As [`Self::many`], where the single word `none` is an empty list and `None` means nobody set it.
    pub(crate) fn many_or_none<T: PartialEq>(
        &self,
        key: &'static Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let Setting { values, place } = self.get(key);
        match values.as_slice() {
            [] if place.is_default() => Ok(None),
            [word] if word == NONE => Ok(Some(Vec::new())),
            values if values.iter().any(|value| value == NONE) => Err(ConfigError::new(
                place,
                "`none` cannot stand beside other values",
            )),
            _ => self.many(key, parse).map(Some),
        }
    }
}

/// The word for an empty list.
pub(crate) const NONE: &str = "none";

/// Commas or blanks separate the values of a list, or new `lines` alone.
fn split(value: &str, lines: bool) -> impl Iterator<Item = String> + '_ {
    let parts = move |c: char| c == '\n' || (!lines && (c == ',' || c.is_whitespace()));
    value
        .split(parts)
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
}

/// Something is there, even if it cannot be read: then reading it says why.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
