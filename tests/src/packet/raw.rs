//! The entries of a map as bytes, whatever they mean.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    ptr,
};

use aya::{maps::Map, util::nr_cpus};

/// `BPF_MAP_LOOKUP_ELEM`, `include/uapi/linux/bpf.h`.
const LOOKUP: libc::c_long = 1;
/// `BPF_MAP_UPDATE_ELEM`.
const UPDATE: libc::c_long = 2;
/// `BPF_MAP_DELETE_ELEM`.
const DELETE: libc::c_long = 3;
/// `BPF_MAP_GET_NEXT_KEY`.
const NEXT_KEY: libc::c_long = 4;

/// What those commands have of `union bpf_attr`.
#[repr(C)]
struct Attr {
    map_fd: u32,
    pad: u32,
    key: *const u8,
    /// Or the next key.
    value: *mut u8,
    flags: u64,
}

/// A map with keys and values.
pub(super) struct RawMap<'a> {
    fd: BorrowedFd<'a>,
    key_size: usize,
    /// Of all CPUs' values, where each has its own.
    value_size: usize,
}

// === impl RawMap ===

impl<'a> RawMap<'a> {
    /// A map of one of the kinds that the programs have; a new kind needs a rule here, and a panic says so.
    pub(super) fn of(map: &'a Map) -> Self {
        let (Map::Array(data)
        | Map::DevMapHash(data)
        | Map::HashMap(data)
        | Map::HashOfMaps(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)) = map
        else {
            panic!("no rule for the entries of {map:?}");
        };
        let info = data.info().unwrap();
        let mut value_size = info.value_size() as usize;
        if matches!(map, Map::PerCpuArray(_)) {
            // `bpf_percpu_array_copy` in `kernel/bpf/arraymap.c`.
            value_size = value_size.next_multiple_of(8) * nr_cpus().unwrap();
        }
        Self {
            fd: data.fd().as_fd(),
            key_size: info.key_size() as usize,
            value_size,
        }
    }

    /// The key behind this one; behind `None` the first.
    pub(super) fn key_after(&self, key: Option<&[u8]>) -> Option<Vec<u8>> {
        let mut next = vec![0; self.key_size];
        self.call(NEXT_KEY, key, Some(&mut next)).then_some(next)
    }

    /// The value; a slot for a program or a map may have none.
    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut value = vec![0; self.value_size];
        self.call(LOOKUP, Some(key), Some(&mut value))
            .then_some(value)
    }

    /// Writes an entry.
    pub(super) fn insert(&self, key: &[u8], value: &[u8]) {
        self.call(UPDATE, Some(key), Some(&mut value.to_vec()));
    }

    /// Takes an entry out.
    pub(super) fn remove(&self, key: &[u8]) {
        self.call(DELETE, Some(key), None);
    }

    /// Sets every bit of the value whose key is all zeros.
    pub(super) fn scribble(&self) {
        self.insert(&vec![0; self.key_size], &vec![0xff; self.value_size]);
    }

    /// Gives whether there was such an entry.
    fn call(&self, command: libc::c_long, key: Option<&[u8]>, value: Option<&mut [u8]>) -> bool {
        assert!(key.is_none_or(|key| key.len() == self.key_size));
        let room = if command == NEXT_KEY {
            self.key_size
        } else {
            self.value_size
        };
        assert!(value.as_ref().is_none_or(|value| value.len() == room));
        let mut attr = Attr {
            map_fd: self.fd.as_raw_fd() as u32,
            pad: 0,
            key: key.map_or(ptr::null(), <[u8]>::as_ptr),
            value: value.map_or(ptr::null_mut(), <[u8]>::as_mut_ptr),
            flags: 0,
        };
        // SAFETY: key and value are as long as the map's, and outlive the call.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                ptr::from_mut(&mut attr),
                size_of::<Attr>(),
            )
        };
        if ret == 0 {
            return true;
        }
        let error = io::Error::last_os_error();
        assert!(
            command != UPDATE && error.raw_os_error() == Some(libc::ENOENT),
            "command {command} of bpf(2): {error}"
        );
        false
    }
}
