//! What clippy cannot check: that its lints are in force everywhere, and that files stay short.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use crate::shell::root;

/// Lines of the longest file that is let through.
const LINES: usize = 500;

/// Folders that hold no source of ours.
const SKIPPED: &[&str] = &["target", ".git"];

/// Looks at every crate and every Rust file.
///
/// # Errors
///
/// Each offence, by file.
pub(crate) fn check() -> Result<()> {
    let mut offences = Vec::new();
    for file in files(root())? {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let shown = file.strip_prefix(root()).unwrap_or(&file).display();
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name == "Cargo.toml" && !inherits_lints(&text) {
            offences.push(format!(
                "{shown}: does not inherit the lints; add `[lints]` with `workspace = true`"
            ));
        }
        let lines = text.lines().count();
        if name.ends_with(".rs") && lines > LINES {
            offences.push(format!(
                "{shown}: {lines} lines; a file is one idea and at most {LINES}"
            ));
        }
    }
    if offences.is_empty() {
        return Ok(());
    }
    bail!("{}", offences.join("\n"))
}

/// The root defines the lints and is no crate itself.
fn inherits_lints(manifest: &str) -> bool {
    let defines = manifest.contains("\n[workspace.lints.clippy]");
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]");
    let inherits = lines
        .nth(1)
        .is_some_and(|line| line.replace(' ', "") == "workspace=true");
    defines || inherits
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_file() {
            found.push(path);
        } else if kind.is_dir() && !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
            found.extend(files(&path)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_without_the_lints_is_found() {
        assert!(inherits_lints(
            "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"
        ));
        assert!(!inherits_lints("[package]\nname = \"a\"\n"));
        assert!(!inherits_lints(
            "[package]\n[lints.clippy]\nall = \"allow\"\n"
        ));
        assert!(!inherits_lints(
            "[package]\n[lints]\n\n[dependencies]\nworkspace = true\n"
        ));
    }

    #[test]
    fn this_workspace_passes() {
        check().unwrap();
    }
}
