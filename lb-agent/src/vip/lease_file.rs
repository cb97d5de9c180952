//! `leases.json`: the leases on disk.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Allocator, Claim, Lease, Leases, Owner, VipName};

/// The layout that this program writes, and the only one it reads.
const VERSION: u32 = 1;

/// Where leases outlive the agent.
#[derive(Clone, Debug)]
pub struct LeaseFile {
    path: PathBuf,
}

/// Why leases could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFileError {
    /// The file is there but is not what was written. Starting without it would move addresses.
    #[error(
        "{path} is damaged: {reason}. Addresses of VIPs are kept there, so restore it from a backup; \
         or move it away, and names whose address was not their first choice may get another"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file could not be read.
    #[error("cannot read the leases in {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be replaced; the old one is whole.
    #[error("cannot write the leases to {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    leases: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipv4: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipv6: Option<Ipv6Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<ClaimEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimEntry {
    provider: String,
    group: String,
    declared: String,
}

// === impl LeaseFile ===

impl LeaseFile {
    /// `leases.json` in `state_dir`; nothing is read or made yet.
    pub fn in_dir(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("leases.json"),
        }
    }

    /// The file itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The leases on disk; none if there is no file yet.
    pub fn load(&self) -> Result<Leases, LeaseFileError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Leases::default()),
            Err(source) => {
                return Err(LeaseFileError::Read {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        parse(&bytes).map_err(|reason| LeaseFileError::Damaged {
            path: self.path.clone(),
            reason,
        })
    }

    /// Writes what changed since the last time, if anything did. Blocks until it is on disk.
    pub fn save(&self, allocator: &mut Allocator) -> Result<(), LeaseFileError> {
        if !allocator.unsaved() {
            return Ok(());
        }
        self.replace(allocator.leases())
            .map_err(|source| LeaseFileError::Write {
                path: self.path.clone(),
                source,
            })?;
        allocator.mark_saved();
        Ok(())
    }

    /// A crash at any point leaves the old file or the new one.
    fn replace(&self, leases: &Leases) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let temporary = self.path.with_extension("json.new");
        let mut file = File::create(&temporary)?;
        serde_json::to_writer_pretty(&mut file, &Document::from(leases))?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        // The new name is in the directory, which is written apart from the file.
        File::open(dir)?.sync_all()
    }
}

fn parse(bytes: &[u8]) -> Result<Leases, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if document.version != VERSION {
        return Err(format!(
            "it has version {}, this program knows {VERSION}",
            document.version
        ));
    }
    let mut leases = Leases::default();
    for entry in document.leases {
        let name = VipName::from_canonical(&entry.name)
            .ok_or_else(|| format!("{:?} is not a canonical name", entry.name))?;
        leases
            .insert(name, entry.into())
            .map_err(|name| format!("{name} is there twice, or its address is"))?;
    }
    Ok(leases)
}

// === impl Document ===

impl From<&Leases> for Document {
    fn from(leases: &Leases) -> Self {
        let entry = |(name, lease): (&VipName, &Lease)| Entry {
            name: name.to_string(),
            ipv4: lease.v4,
            ipv6: lease.v6,
            claim: lease.claim.as_ref().map(ClaimEntry::from),
        };
        Self {
            version: VERSION,
            leases: leases.iter().map(entry).collect(),
        }
    }
}

impl From<Entry> for Lease {
    fn from(entry: Entry) -> Self {
        Self {
            v4: entry.ipv4,
            v6: entry.ipv6,
            claim: entry.claim.map(Claim::from),
        }
    }
}

impl From<&Claim> for ClaimEntry {
    fn from(claim: &Claim) -> Self {
        Self {
            provider: claim.owner.provider.to_string(),
            group: claim.owner.group.to_string(),
            declared: claim.declared.to_string(),
        }
    }
}

impl From<ClaimEntry> for Claim {
    fn from(entry: ClaimEntry) -> Self {
        Self {
            owner: Owner {
                provider: entry.provider.into(),
                group: entry.group.into(),
            },
            declared: Arc::from(entry.declared),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::vip::{Family, Pools};

    fn name(canonical: &str) -> VipName {
        VipName::from_canonical(canonical).expect("a canonical name")
    }

    fn allocated(names: &[&str]) -> Allocator {
        let mut allocator = Allocator::new(Pools::default(), Leases::default());
        let wanted = names
            .iter()
            .flat_map(|canonical| Family::ALL.map(|family| (family, name(canonical))));
        allocator.allocate(&wanted.collect(), &BTreeSet::new());
        allocator
    }

    #[test]
    fn leases_survive_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = LeaseFile::in_dir(&dir.path().join("state"));
        assert_eq!(file.load().expect("no file is no lease"), Leases::default());
        let mut allocator = allocated(&["svc4703.marathon", "svc1265.marathon"]);
        let claim = Claim {
            owner: Owner {
                provider: "file:x".into(),
                group: "g".into(),
            },
            declared: "svc1265".into(),
        };
        allocator.claim(&name("svc1265.marathon"), claim);
        file.save(&mut allocator).expect("saved");
        assert!(!allocator.unsaved());
        assert_eq!(file.load().expect("readable"), *allocator.leases());
        let left: Vec<_> = fs::read_dir(dir.path().join("state"))
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["leases.json"]);
    }

    #[test]
    fn the_file_is_what_a_person_expects() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = LeaseFile::in_dir(dir.path());
        file.save(&mut allocated(&["redis.marathon"]))
            .expect("saved");
        let text = fs::read_to_string(file.path()).expect("readable");
        assert_eq!(
            text,
            r#"{
  "version": 1,
  "leases": [
    {
      "name": "redis.marathon",
      "ipv4": "11.202.66.36",
      "ipv6": "fd01:c::da94:49ac:1e87:4a07"
    }
  ]
}
"#
        );
    }

    #[test]
    fn a_damaged_file_is_named_with_the_remedy_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = LeaseFile::in_dir(dir.path());
        for (text, says) in [
            ("", "EOF"),
            (r#"{"version":1,"leases":[{"name":"a.m""#, "EOF"),
            (r#"{"version":2,"leases":[]}"#, "version 2"),
            (r#"{"version":1,"leases":[{"name":"A/"}]}"#, "canonical"),
            (
                r#"{"version":1,"leases":[{"name":"a.m","ipv4":"11.0.0.256"}]}"#,
                "IPv4",
            ),
            (
                r#"{"version":1,"leases":[{"name":"a.m","ipv4":"11.0.0.1"},{"name":"b.m","ipv4":"11.0.0.1"}]}"#,
                "b.m is there twice",
            ),
            (
                r#"{"version":1,"leases":[{"name":"a.m"},{"name":"a.m"}]}"#,
                "a.m is there twice",
            ),
        ] {
            fs::write(file.path(), text).expect("written");
            let error = file.load().expect_err("damaged").to_string();
            assert!(error.contains(says), "{error}");
            assert!(
                error.contains("leases.json") && error.contains("backup"),
                "{error}"
            );
            assert_eq!(fs::read_to_string(file.path()).expect("still there"), text);
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_stays_to_be_saved() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = LeaseFile::in_dir(dir.path());
        let mut allocator = allocated(&["redis.marathon"]);
        // A directory in the way of the temporary file; permissions would not stop root.
        fs::create_dir(dir.path().join("leases.json.new")).expect("a directory");
        let error = file.save(&mut allocator).expect_err("in the way");
        assert!(error.to_string().contains("leases.json"), "{error}");
        assert!(allocator.unsaved());
    }
}
