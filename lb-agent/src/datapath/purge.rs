//! Removes every pin and filter.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::clsact;
use crate::purged::Purged;

/// Detaches every program and frees every map of a pin folder, whatever schema made them; removes our tc
/// filters from every interface of this network namespace. Says what was removed, pins by path, and goes on
/// where something cannot be.
pub fn purge(pin_dir: &Path, purged: &mut Purged) {
    let mut schemas = purged.expect(list(pin_dir)).unwrap_or_default();
    schemas.retain(|path| is_schema(path));
    let links: Vec<_> = schemas.iter().map(|schema| schema.join("links")).collect();
    // Filters and links before maps: no program is left running on a map that is going.
    clsact::purge(&links, purged);
    for schema in schemas {
        let links = schema.join("links");
        for dir in [links, schema] {
            remove_files(&dir, purged);
            purged.expect(remove_dir(&dir));
        }
    }
    purged.expect(remove_dir(pin_dir));
}

/// `v` and a number: whatever else is in the folder is somebody else's.
fn is_schema(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix('v'));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot list {}", dir.display())),
    }
}

fn remove_files(dir: &Path, purged: &mut Purged) {
    let found = purged.expect(list(dir)).unwrap_or_default();
    for path in found.into_iter().filter(|path| !path.is_dir()) {
        let removed = match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        };
        purged.note(path.display().to_string(), removed);
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir(dir) {
        // Not empty: what is left is somebody else's, or was told of.
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
