//! Backends, what is known by their ids, and Maglev tables: what there is much of, read and written by batches,
//! which aya does not have.

use std::{
    collections::BTreeMap,
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
};

use super::sys;
use crate::plan::{KernelState, Table, TableId};
use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, Pod, maps::Map};

/// Values read with one call.
const BATCH: usize = 4_096;

/// An array of which each id has one value; id 0 is nobody's.
#[derive(Debug)]
pub(super) struct ById<V> {
    name: &'static str,
    len: usize,
    fd: OwnedFd,
    values: PhantomData<V>,
}

/// The tables of one size, by service id.
pub(super) struct Tables<const M: usize> {
    fd: OwnedFd,
}

/// A descriptor of one of the object's maps.
fn descriptor(object: &Ebpf, name: &str) -> Result<OwnedFd> {
    match object.map(name) {
        Some(Map::Array(data) | Map::HashOfMaps(data)) => {
            Ok(data.fd().as_fd().try_clone_to_owned()?)
        }
        _ => bail!("the object holds no map {name} of its type"),
    }
}

// === impl ById ===

impl<V: Pod + Default + PartialEq> ById<V> {
    /// The object's map of this name, which has so many entries.
    pub(super) fn take(object: &Ebpf, name: &'static str, len: u32) -> Result<Self> {
        Ok(Self::new(name, len, descriptor(object, name)?))
    }

    /// The map that is pinned in this folder.
    pub(super) fn open(dir: &Path, name: &'static str, len: u32) -> Result<Self> {
        let path = dir.join(name);
        let fd = sys::open_pin(&path)
            .with_context(|| format!("cannot open the pinned map {}", path.display()))?;
        Ok(Self::new(name, len, fd))
    }

    fn new(name: &'static str, len: u32, fd: OwnedFd) -> Self {
        Self {
            name,
            len: len as usize,
            fd,
            values: PhantomData,
        }
    }

    /// All values but default ones, by id.
    pub(super) fn read(&self) -> Result<BTreeMap<u32, V>> {
        self.read_below(self.len)
    }

    /// Those of the ids below `end`.
    pub(super) fn read_below(&self, end: usize) -> Result<BTreeMap<u32, V>> {
        let end = end.min(self.len);
        let mut found = BTreeMap::new();
        let mut cursor = sys::Cursor::default();
        let room = BATCH.min(end);
        let (mut ids, mut values) = (vec![0_u32; room], vec![V::default(); room]);
        let mut seen = 0;
        let mut more = true;
        while more && seen < end {
            let read;
            (read, more) = sys::lookup_batch(self.fd.as_fd(), &mut cursor, &mut ids, &mut values)
                .with_context(|| format!("cannot read {}", self.name))?;
            seen += read;
            let entries = ids.iter().zip(&values).take(read);
            let used = entries.filter(|(id, value)| **id != 0 && **value != V::default());
            found.extend(used.map(|(id, value)| (*id, *value)));
        }
        Ok(found)
    }

    pub(super) fn put(&self, ids: &[u32], values: &[V]) -> Result<()> {
        sys::update_batch(self.fd.as_fd(), ids, values)
            .with_context(|| format!("cannot write {}", self.name))
    }

    /// Whether there is room for this id.
    pub(super) fn has(&self, id: u32) -> bool {
        (id as usize) < self.len
    }

    /// The value of one id.
    pub(super) fn get(&self, id: u32) -> Result<V> {
        let mut value = V::default();
        sys::map_get_value(self.fd.as_fd(), id, &mut value)
            .with_context(|| format!("cannot read {id} of {}", self.name))?;
        Ok(value)
    }
}

// === impl Tables ===

impl<const M: usize> Tables<M> {
    pub(super) fn of(object: &Ebpf, name: &str) -> Result<Self> {
        let fd = descriptor(object, name)?;
        Ok(Self { fd })
    }

    /// Adds what they hold.
    pub(super) fn read(&self, state: &mut KernelState) -> Result<()> {
        let mut slots = vec![0; M];
        let mut service = None;
        while let Some(next) = sys::next_key(self.fd.as_fd(), service)? {
            service = Some(next);
            let mut id = [0];
            sys::map_get(self.fd.as_fd(), &[next], &mut id)
                .and_then(|()| sys::map_by_id(id[0]))
                .and_then(|table| sys::map_get(table.as_fd(), &[0], &mut slots))
                .with_context(|| format!("cannot read the Maglev table of service {next}"))?;
            let table = TableId {
                service: next,
                slots: M as u32,
            };
            state.tables.insert(table, Table::of(&slots));
        }
        Ok(())
    }

    /// The slots of one service; `None`: it has no table of this size.
    pub(super) fn slots(&self, service: u32) -> Result<Option<Vec<u32>>> {
        let mut id = [0];
        match sys::map_get(self.fd.as_fd(), &[service], &mut id) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut slots = vec![0; M];
        sys::map_by_id(id[0])
            .and_then(|table| sys::map_get(table.as_fd(), &[0], &mut slots))
            .with_context(|| format!("cannot read the Maglev table of service {service}"))?;
        Ok(Some(slots))
    }

    pub(super) fn remove(&self, service: u32) -> Result<()> {
        sys::map_delete(self.fd.as_fd(), service)
            .with_context(|| format!("cannot remove the Maglev table of service {service}"))
    }

    /// Fills new inner maps, one call each, and puts them in the old ones' place, one call for all.
    pub(super) fn swap(&self, tables: &[(u32, Arc<[u32]>)]) -> Result<()> {
        let mut inner = Vec::with_capacity(tables.len());
        let mut services = Vec::with_capacity(tables.len());
        for (service, slots) in tables {
            if slots.len() != M {
                bail!("a table of {} slots, not {M}", slots.len());
            }
            let map = sys::array_of_one(size_of::<[u32; M]>() as u32)
                .context("cannot make a Maglev table")?;
            sys::map_put(map.as_fd(), &[0], slots).context("cannot fill a Maglev table")?;
            services.push(*service);
            inner.push(map);
        }
        sys::map_put_maps(self.fd.as_fd(), &services, &inner)
            .with_context(|| format!("cannot swap {} Maglev tables of {M} slots", tables.len()))
    }
}
