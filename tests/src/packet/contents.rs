//! All that the maps of an object hold, and putting it back.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{Map, RingBuf},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Rig, raw::RawMap};

/// Values by their keys.
type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Every entry of every map, by the map's name.
#[derive(Debug)]
pub struct Contents(BTreeMap<String, Entries>);

// === impl Contents ===

impl Contents {
    pub(super) fn of(object: &Ebpf) -> Self {
        let maps = object.maps();
        Self(
            maps.map(|(name, map)| (name.to_owned(), entries(map)))
                .collect(),
        )
    }

    /// Gives every map these entries, and no others.
    pub(super) fn put_back(&self, object: &mut Ebpf) {
        for (name, wanted) in &self.0 {
            let map = object.map_mut(name);
            let map = map.unwrap_or_else(|| panic!("somebody took {name} away"));
            put_back(map, wanted, name);
        }
    }

    /// The names of the maps.
    pub fn maps(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// The names of the maps that hold something else there.
    pub fn unlike(&self, there: &Self) -> Vec<&str> {
        let mut names = self.maps();
        names.retain(|name| self.0.get(*name) != there.0.get(*name));
        names
    }
}

// === impl Rig ===

impl Rig {
    /// All that its maps hold.
    pub fn contents(&self) -> Contents {
        Contents::of(&self.object)
    }

    /// Spoils every map that takes any bytes. Constants are none, and neither are maps whose values stand for something
    /// that the kernel must know.
    pub fn scribble(&mut self) {
        for (name, map) in self.object.maps() {
            if is_of_bytes(map) && !name.starts_with(".rodata") {
                RawMap::of(map).scribble();
            }
        }
    }
}

fn is_of_bytes(map: &Map) -> bool {
    matches!(
        map,
        Map::Array(_)
            | Map::HashMap(_)
            | Map::LpmTrie(_)
            | Map::LruHashMap(_)
            | Map::PerCpuArray(_)
    )
}

fn put_back(map: &mut Map, wanted: &Entries, name: &str) {
    let held = entries(map);
    if held == *wanted {
        return;
    }
    if matches!(map, Map::RingBuf(_)) {
        let mut records = RingBuf::try_from(&mut *map).unwrap();
        while records.next().is_some() {}
    } else {
        let map = RawMap::of(map);
        for key in held.keys().filter(|key| !wanted.contains_key(*key)) {
            map.remove(key);
        }
        for (key, value) in wanted {
            if held.get(key) != Some(value) {
                map.insert(key, value);
            }
        }
    }
    assert!(
        entries(map) == *wanted,
        "{name} does not take back what it held"
    );
}

fn entries(map: &Map) -> Entries {
    let mut entries = Entries::new();
    if let Map::RingBuf(_) = map {
        // What its records say is gone once it is read.
        if holds_records(map) {
            entries.insert(Vec::new(), Vec::new());
        }
        return entries;
    }
    let map = RawMap::of(map);
    let mut next = map.key_after(None);
    while let Some(key) = next {
        next = map.key_after(Some(&key));
        if let Some(value) = map.get(&key) {
            entries.insert(key, value);
        }
    }
    entries
}

fn holds_records(map: &Map) -> bool {
    let records = RingBuf::try_from(map).unwrap();
    let mut asked = [PollFd::new(&records, PollFlags::IN)];
    poll(&mut asked, Some(&Timespec::default())).unwrap() > 0
}
