//! All that etcd holds below our prefix. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{Event, KeyValue, Revision};

/// More keys, or more bytes in all values, are nothing that we keep.
pub(super) const MOST_KEYS: usize = 100_000;
const MOST_BYTES: usize = 256 << 20;

/// Keys without the prefix, with what they hold and when that was put there.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    prefix: Vec<u8>,
    held: BTreeMap<String, (Revision, Vec<u8>)>,
}

/// Which keys may be others than before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed(pub(super) BTreeSet<String>);

// === impl Mirror ===

impl Mirror {
    /// Nothing below `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.as_bytes().to_vec(),
            held: BTreeMap::new(),
        }
    }

    /// Takes a whole listing.
    ///
    /// # Errors
    /// It is too much to keep; nothing is taken.
    pub(super) fn replace(&mut self, listing: Vec<KeyValue>) -> Result<Changed, String> {
        let bytes: usize = listing.iter().map(|kv| kv.value.0.len()).sum();
        if listing.len() > MOST_KEYS || bytes > MOST_BYTES {
            let keys = listing.len();
            return Err(format!(
                "{keys} keys with {bytes} bytes are too much; at most {MOST_KEYS} keys with {MOST_BYTES} bytes are taken"
            ));
        }
        let mut before = std::mem::take(&mut self.held);
        let mut changed = Changed::default();
        for kv in listing {
            let Some(name) = self.name(&kv) else { continue };
            let now = (kv.mod_revision, kv.value.0);
            if before.remove(&name).as_ref() != Some(&now) {
                changed.0.insert(name.clone());
            }
            self.held.insert(name, now);
        }
        changed.0.extend(before.into_keys());
        Ok(changed)
    }

    /// Takes changes one by one.
    pub(super) fn apply(&mut self, events: Vec<Event>) -> Changed {
        let mut changed = Changed::default();
        for event in events {
            let Some(name) = self.name(&event.kv) else {
                continue;
            };
            // What comes late says nothing against what came after it.
            let held = self.held.get(&name);
            if held.is_some_and(|(revision, _)| *revision > event.kv.mod_revision) {
                continue;
            }
            if event.is_delete() {
                self.held.remove(&name);
            } else {
                let now = (event.kv.mod_revision, event.kv.value.0);
                self.held.insert(name.clone(), now);
            }
            changed.0.insert(name);
        }
        changed
    }

    /// Whether these are the keys that are held, as they were put last.
    pub(super) fn agrees(&self, keys: &[KeyValue]) -> bool {
        let mut named = 0;
        let same = keys.iter().all(|kv| {
            let Some(name) = self.name(kv) else {
                return true;
            };
            named += 1;
            self.held
                .get(&name)
                .is_some_and(|(revision, _)| *revision == kv.mod_revision)
        });
        same && named == self.held.len()
    }

    /// What a key holds.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.held.get(name).map(|(_, value)| value.as_slice())
    }

    /// The keys below a folder, which ends in `/`, without it.
    pub(super) fn below<'a>(
        &'a self,
        folder: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let range = self.held.range(folder.to_owned()..);
        range.map_while(move |(name, (_, value))| {
            Some((name.strip_prefix(folder)?, value.as_slice()))
        })
    }

    /// A key that is not UTF-8 is none of ours.
    fn name(&self, kv: &KeyValue) -> Option<String> {
        let name = kv.key.0.strip_prefix(self.prefix.as_slice())?;
        String::from_utf8(name.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, revision: i64, value: &str) -> KeyValue {
        KeyValue {
            key: key.into(),
            mod_revision: Revision(revision),
            value: value.into(),
        }
    }

    fn changed(names: &[&str]) -> Changed {
        Changed(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_listing_replaces_and_changes_follow() {
        let mut mirror = Mirror::new("/lb/");
        let listing = || {
            vec![
                kv("/lb/a/1", 2, "x"),
                kv("/lb/a/2", 3, "y"),
                kv("/other", 4, "z"),
            ]
        };
        assert_eq!(mirror.replace(listing()), Ok(changed(&["a/1", "a/2"])));
        assert_eq!(mirror.replace(listing()), Ok(changed(&[])));
        assert!(mirror.agrees(&listing()));
        let event = |kind: &str, kv| Event {
            kind: kind.to_owned(),
            kv,
        };
        let events = vec![
            event("DELETE", kv("/lb/a/1", 5, "")),
            event("", kv("/lb/b", 5, "new")),
        ];
        assert_eq!(mirror.apply(events), changed(&["a/1", "b"]));
        assert!(!mirror.agrees(&listing()));
        assert_eq!(mirror.get("b"), Some(b"new".as_slice()));
        let below: Vec<_> = mirror.below("a/").map(|(name, _)| name).collect();
        assert_eq!(below, ["2"]);
        assert_eq!(mirror.replace(listing()), Ok(changed(&["a/1", "b"])));
    }

    #[test]
    fn a_change_that_comes_late_takes_nothing_back() {
        let mut mirror = Mirror::new("/lb/");
        let event = |kind: &str, revision, value| Event {
            kind: kind.to_owned(),
            kv: kv("/lb/a", revision, value),
        };
        mirror.apply(vec![event("", 7, "new")]);
        let late = vec![event("DELETE", 6, ""), event("", 5, "old")];
        assert_eq!(mirror.apply(late), changed(&[]));
        assert_eq!(mirror.get("a"), Some(b"new".as_slice()));
        assert_eq!(mirror.apply(vec![event("DELETE", 8, "")]), changed(&["a"]));
        assert_eq!(mirror.get("a"), None);
    }

    #[test]
    fn more_than_can_be_kept_changes_nothing() {
        let mut mirror = Mirror::new("/");
        mirror.replace(vec![kv("/a", 1, "x")]).unwrap();
        let many = (0..=MOST_KEYS)
            .map(|n| kv(&format!("/{n}"), 1, ""))
            .collect();
        assert!(mirror.replace(many).unwrap_err().contains("too much"));
        assert_eq!(mirror.get("a"), Some(b"x".as_slice()));
    }
}
