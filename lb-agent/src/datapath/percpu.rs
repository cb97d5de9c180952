//! Arrays of which each CPU has its own values: counters by id.

use std::{
    marker::PhantomData,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{Ebpf, Pod, maps::Map, util::nr_cpus};

use super::sys;

/// Values of each CPU that are read with one call.
const BATCH: usize = 1_024;

/// One map; `V`: what it holds for each id and CPU.
#[derive(Debug)]
pub(super) struct PerCpu<V> {
    name: &'static str,
    fd: OwnedFd,
    /// As many as the kernel gives values of: those that may ever be there.
    cpus: usize,
    values: PhantomData<V>,
}

impl<V: Pod + Default> PerCpu<V> {
    /// The object's map of this name.
    pub(super) fn take(object: &Ebpf, name: &'static str) -> Result<Self> {
        match object.map(name) {
            Some(Map::PerCpuArray(data)) => {
                Self::new(name, data.fd().as_fd().try_clone_to_owned()?)
            }
            _ => Err(anyhow!("the object holds no map {name} of its type")),
        }
    }

    /// The map that is pinned in this folder.
    pub(super) fn open(dir: &Path, name: &'static str) -> Result<Self> {
        let path = dir.join(name);
        let fd = sys::open_pin(&path)
            .with_context(|| format!("cannot open the pinned map {}", path.display()))?;
        Self::new(name, fd)
    }

    fn new(name: &'static str, fd: OwnedFd) -> Result<Self> {
        // The kernel rounds what each CPU has up to 8 bytes.
        const { assert!(size_of::<V>().is_multiple_of(8)) };
        let cpus = nr_cpus().map_err(|(file, error)| {
            anyhow::Error::new(error).context(format!("cannot read {file}"))
        })?;
        Ok(Self {
            name,
            fd,
            cpus,
            values: PhantomData,
        })
    }

    /// The first `len` values, each put together of all CPUs' by `add`.
    pub(super) fn sums(&self, len: usize, add: impl Fn(&mut V, &V)) -> Result<Vec<V>> {
        let mut sums = vec![V::default(); len];
        let mut cursor = sys::Cursor::default();
        let room = BATCH.min(len.max(1));
        let mut ids = vec![0_u32; room];
        let mut values = vec![V::default(); room * self.cpus];
        let mut seen = 0;
        let mut more = true;
        while more && seen < len {
            let read;
            // There is room for all CPUs' values of every id.
            (read, more) = sys::lookup_batch(self.fd.as_fd(), &mut cursor, &mut ids, &mut values)
                .with_context(|| format!("cannot read {}", self.name))?;
            seen += read;
            for (id, cpus) in ids.iter().zip(values.chunks(self.cpus)).take(read) {
                if let Some(sum) = sums.get_mut(*id as usize) {
                    cpus.iter().for_each(|cpu| add(sum, cpu));
                }
            }
        }
        Ok(sums)
    }

    /// Begins to count anew.
    pub(super) fn clear(&self, id: u32) -> Result<()> {
        let zeros = vec![V::default(); self.cpus];
        sys::map_put_values(self.fd.as_fd(), id, &zeros)
            .with_context(|| format!("cannot clear {id} of {}", self.name))
    }
}
