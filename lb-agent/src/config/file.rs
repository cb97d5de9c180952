//! The config file: flat TOML, one key per setting.

use std::{collections::BTreeMap, io, path::Path};

use toml::de::{DeTable, DeValue};

use super::{
    error::{ConfigError, Place},
    keys::{self, KEYS, Key},
};

/// What the file sets, by the setting's name, each with its place.
pub(crate) type FileLayer = BTreeMap<&'static str, (Vec<String>, Place)>;

/// Reads the file; one that does not exist is an error here.
pub(crate) fn read(path: &Path) -> Result<FileLayer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "the config file does not exist".to_owned(),
            io::ErrorKind::InvalidData => "the config file is not UTF-8 text".to_owned(),
            _ => format!("cannot read the config file: {error}"),
        };
        ConfigError::new(Place::WholeFile(path.to_owned()), reason)
    })?;
    parse(path, &text)
}

/// Reads the text of a config file; `path` is only for messages.
fn parse(path: &Path, text: &str) -> Result<FileLayer, ConfigError> {
    let place = |at: usize, key: &str| Place::File {
        path: path.to_owned(),
        line: text
            .as_bytes()
            .iter()
            .take(at)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1,
        key: key.to_owned(),
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        ConfigError::new(
            place(at, ""),
            format!("not valid TOML: {}", error.message().replace('\n', ", ")),
        )
    })?;
    let mut layer = FileLayer::new();
    for (name, value) in table.get_ref() {
        let place = place(name.span().start, name.get_ref());
        let Some(key) = keys::find(name.get_ref()) else {
            return Err(ConfigError::new(place, unknown(name.get_ref())));
        };
        if !key.in_file {
            return Err(ConfigError::new(
                place,
                "cannot be set in the config file itself, only by flag or environment",
            ));
        }
        let values = values(key, value.get_ref())
            .map_err(|reason| ConfigError::new(place.clone(), reason))?;
        layer.insert(key.name, (values, place));
    }
    Ok(layer)
}

/// A string, an integer, or for a repeatable setting a list of them, as text.
fn values(key: &Key, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wanted = if key.many {
        "a string or a list of strings"
    } else if key.switch {
        "true or false"
    } else {
        "a string or a number"
    };
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| format!("{} is too large a number", number.as_str())),
        DeValue::Boolean(on) if key.switch => Ok(if *on { keys::YES } else { "no" }.to_owned()),
        other => Err(format!(
            "must be {wanted}, not {}",
            article(other.type_str())
        )),
    };
    match value {
        DeValue::Array(items) if key.many => {
            items.iter().map(|item| scalar(item.get_ref())).collect()
        }
        DeValue::Array(_) => Err("takes one value, not a list".to_owned()),
        value => scalar(value).map(|text| vec![text]),
    }
}

fn article(noun: &str) -> String {
    let an = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if an { "an" } else { "a" })
}

/// Says that there is no such setting, and which one was probably meant.
pub(crate) fn unknown(name: &str) -> String {
    match nearest(name) {
        Some(key) => format!("unknown key; did you mean {}?", key.name),
        None => "unknown key; `lb-agent --help` lists all, without the dashes in front".to_owned(),
    }
}

fn nearest(name: &str) -> Option<&'static Key> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    KEYS.iter()
        .map(|key| (strsim::jaro_winkler(&name, key.name), *key))
        // Below this the two have little in common but a few letters.
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, key)| key)
}
