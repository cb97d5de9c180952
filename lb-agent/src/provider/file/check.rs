//! A look at services files without an agent: everything that is wrong, and what would be served.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    read_all,
    reading::{listed, text},
};
use crate::provider::{Snapshot, documents::Documents};

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    /// One sentence for each thing that is wrong, by file and place.
    pub wrong: Vec<String>,
    /// What an agent that starts with these files would serve.
    pub snapshot: Snapshot,
}

/// Reads a file, or all `*.yaml` of a directory.
///
/// # Errors
/// There is nothing that could be read, as one sentence.
pub fn check(path: &Path) -> Result<Checked, String> {
    let found = std::fs::metadata(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let (files, strange) = if found.is_dir() {
        listed(path)?
    } else {
        (BTreeSet::from([path.to_owned()]), Vec::new())
    };
    let mut wrong = Vec::new();
    let mut documents = Documents::default();
    for file in &files {
        let read = text(file);
        match &read {
            Ok(text) => wrong.extend(read_all(text, file).wrong),
            Err(why) => wrong.push(why.clone()),
        }
        documents.put(&file.display().to_string(), read);
    }
    let snapshot = documents.snapshot();
    // What only several files together have.
    let names: BTreeSet<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let told: BTreeSet<&String> = wrong.iter().collect();
    let between = snapshot.problems.iter();
    let between = between
        .filter(|one| !names.contains(&*one.subject) && !told.contains(&one.reason))
        .map(|one| one.reason.clone());
    let strange = strange
        .iter()
        .map(|one| format!("{}: {}", one.subject, one.reason));
    let more: Vec<String> = between.chain(strange).collect();
    wrong.extend(more);
    Ok(Checked {
        files: files.into_iter().collect(),
        wrong,
        snapshot,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn everything_that_is_wrong_is_told_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.yaml");
        let text = "services:\n- {nmae: /a, port: 0}\n- name: /b\n  port: [1]\n  blance: source\n\
                    - {name: /c, port: 3, rate: x, backends: [10.0.0.1, '10.0.0.2:80']}\nsevices: 1\n";
        fs::write(&file, text).unwrap();
        let Checked {
            wrong, snapshot, ..
        } = check(&file).unwrap();
        let places: Vec<_> = wrong
            .iter()
            .map(|one| one.strip_prefix(&format!("{}:", file.display())).unwrap())
            .collect();
        assert_eq!(
            places,
            [
                "2:3: key name (or address) is missing; service left out",
                "2:4: unknown key nmae; did you mean name?",
                "3:3: key port is missing; service left out",
                "4:9: key port: one value belongs here, not a list",
                "5:3: unknown key blance; did you mean balance?",
                "6:29: key rate: \"x\" is not a number from 1 to 4294967295; service left out",
                "7:1: unknown key sevices; did you mean services?",
            ]
        );
        assert_eq!(snapshot.pools, []);
    }

    #[test]
    fn of_a_directory_what_is_good_would_be_served() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("a.yaml", "services: [{name: /a, port: 1, rate: 5}]");
        write(
            "b.yaml",
            "services: [{name: /a, port: 1, rate: 6}, {name: /b, port: 2}]",
        );
        write("c.yaml", "services: 7");
        write("d.yml", "services: []");
        write(".hidden.yaml", "services: 7");
        let Checked {
            files,
            wrong,
            snapshot,
        } = check(dir.path()).unwrap();
        assert_eq!(files.len(), 3);
        let wrong = wrong
            .join("\n")
            .replace(&dir.path().display().to_string(), "DIR");
        assert_eq!(
            wrong,
            "DIR/c.yaml:1:11: key services: a list belongs here, not a single value\n\
             DIR/b.yaml: DIR/a.yaml comes first and has another rate for /a:1/tcp; service left out\n\
             DIR/d.yml: the file is not read: its name does not end in .yaml"
        );
        let apps: Vec<_> = snapshot.pools.iter().map(|pool| &*pool.app).collect();
        assert_eq!(apps, ["/a", "/b"]);
        assert!(
            check(&dir.path().join("none"))
                .unwrap_err()
                .contains("cannot read")
        );
    }
}
