//! Removes every pin and filter.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};

use super::clsact;

/// Detaches every program and frees every map of a pin folder, whatever schema made them; removes our tc
/// filters from every interface of this network namespace. Gives what was removed, pins by path.
///
/// # Errors
///
/// If something cannot be listed or removed.
pub fn purge(pin_dir: &Path) -> Result<Vec<String>> {
    let mut schemas = list(pin_dir)?;
    schemas.retain(|path| is_schema(path));
    let links: Vec<_> = schemas.iter().map(|schema| schema.join("links")).collect();
    // Filters and links before maps: no program is left running on a map that is going.
    let mut removed = clsact::purge(&links)?;
    for schema in schemas {
        let links = schema.join("links");
        remove_files(&links, &mut removed)?;
        remove_dir(&links)?;
        remove_files(&schema, &mut removed)?;
        remove_dir(&schema)?;
    }
    remove_dir(pin_dir)?;
    Ok(removed)
}

/// `v` and a number: whatever else is in the folder is somebody else's.
fn is_schema(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix('v'));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

fn list(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot list {}", dir.display())),
    }
}

fn remove_files(dir: &Path, removed: &mut Vec<String>) -> Result<()> {
    for path in list(dir)?.into_iter().filter(|path| !path.is_dir()) {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        removed.push(path.display().to_string());
    }
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir(dir) {
        // Not empty: what is left is somebody else's.
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
