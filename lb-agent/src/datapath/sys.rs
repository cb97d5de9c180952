//! The few bpf(2) commands that aya 0.14 does not give: links made and updated without a silent fall-back
//! to netlink, and pins by path. Each function is one system call.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `enum bpf_cmd`, `include/uapi/linux/bpf.h`.
mod cmd {
    pub(super) const MAP_CREATE: libc::c_long = 0;
    pub(super) const MAP_LOOKUP_ELEM: libc::c_long = 1;
    pub(super) const MAP_UPDATE_ELEM: libc::c_long = 2;
    pub(super) const MAP_DELETE_ELEM: libc::c_long = 3;
    pub(super) const MAP_GET_NEXT_KEY: libc::c_long = 4;
    pub(super) const OBJ_PIN: libc::c_long = 6;
    pub(super) const OBJ_GET: libc::c_long = 7;
    pub(super) const MAP_GET_FD_BY_ID: libc::c_long = 14;
    pub(super) const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    pub(super) const MAP_LOOKUP_BATCH: libc::c_long = 24;
    pub(super) const MAP_UPDATE_BATCH: libc::c_long = 26;
    pub(super) const LINK_CREATE: libc::c_long = 28;
    pub(super) const LINK_UPDATE: libc::c_long = 29;
    pub(super) const LINK_DETACH: libc::c_long = 34;
}

/// What a link hangs on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// An interface, by index.
    Interface(u32),
    /// A cgroup or a network namespace.
    Fd(BorrowedFd<'a>),
}

/// `union bpf_attr`: longer than any command used here needs; the rest is zero as the kernel asks.
#[repr(C, align(8))]
struct Attr([u32; 32]);

impl Attr {
    fn new() -> Self {
        Self([0; 32])
    }

    fn set_pointer(&mut self, word: usize, pointer: u64) {
        let bytes = pointer.to_ne_bytes();
        let half =
            |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        (self.0[word], self.0[word + 1]) = (half(0), half(4));
    }
}

fn bpf(command: libc::c_long, attr: &mut Attr) -> io::Result<i32> {
    // SAFETY: the attribute outlives the call and is as long as told; the pointers inside it are the
    // callers' to keep alive.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<Attr>(),
        )
    };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret as i32)
    }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just gave us this descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path holds a NUL byte"))
}

/// Attaches `program` by a link that lives as long as a descriptor or a pin of it. Kernel 5.7 for
/// cgroups, 5.9 for XDP, 6.6 for tcx.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    target: Target<'_>,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = Attr::new();
    attr.0[0] = program.as_raw_fd() as u32;
    attr.0[1] = match target {
        Target::Interface(index) => index,
        Target::Fd(fd) => fd.as_raw_fd() as u32,
    };
    attr.0[2] = attach_type;
    attr.0[3] = flags;
    bpf(cmd::LINK_CREATE, &mut attr).map(owned)
}

/// Puts `program` in the place of the link's present one, at one stroke.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = link.as_raw_fd() as u32;
    attr.0[1] = program.as_raw_fd() as u32;
    bpf(cmd::LINK_UPDATE, &mut attr).map(drop)
}

/// Takes the link's program off at once. Kernel 5.9.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = link.as_raw_fd() as u32;
    bpf(cmd::LINK_DETACH, &mut attr).map(drop)
}

/// Pins an object at `path` in a bpffs.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    let mut attr = Attr::new();
    attr.set_pointer(0, path.as_ptr() as u64);
    attr.0[2] = object.as_raw_fd() as u32;
    bpf(cmd::OBJ_PIN, &mut attr).map(drop)
}

/// Opens what is pinned at `path`.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let mut attr = Attr::new();
    attr.set_pointer(0, path.as_ptr() as u64);
    bpf(cmd::OBJ_GET, &mut attr).map(owned)
}

/// The interface index that an XDP or tcx link hangs on; 0 when the interface is gone.
pub(super) fn link_ifindex(link: BorrowedFd<'_>) -> io::Result<u32> {
    // `struct bpf_link_info`: type, id, prog_id, then a union whose first member is the index.
    const IFINDEX: usize = 4;
    let mut info = [0_u32; 32];
    let mut attr = Attr::new();
    attr.0[0] = link.as_raw_fd() as u32;
    attr.0[1] = size_of_val(&info) as u32;
    attr.set_pointer(2, info.as_mut_ptr() as u64);
    bpf(cmd::OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info[IFINDEX])
}

/// Where a walk through a hash map stands: the kernel's word for the next bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor(Option<u32>);

/// Reads entries of a hash map, or of an array, from `cursor` on, as many as there is room for, and moves the cursor.
/// Gives the number of entries read and whether there are more. Kernel 5.6. Of a per-CPU map each entry takes as many
/// values as there are CPUs, and there must be room for those of all keys.
///
/// # Errors
///
/// `ENOSPC` if one bucket holds more entries than there is room for.
pub(super) fn lookup_batch<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, bool)> {
    let room = keys.len().min(values.len());
    let mut attr = Attr::new();
    let (from, mut next) = (cursor.0, 0_u32);
    if let Some(from) = &from {
        attr.set_pointer(0, std::ptr::from_ref(from) as u64);
    }
    attr.set_pointer(2, std::ptr::from_mut(&mut next) as u64);
    attr.set_pointer(4, keys.as_mut_ptr() as u64);
    attr.set_pointer(6, values.as_mut_ptr() as u64);
    attr.0[8] = room as u32;
    attr.0[9] = map.as_raw_fd() as u32;
    let more = match bpf(cmd::MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => true,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
        Err(error) => return Err(error),
    };
    cursor.0 = Some(next);
    Ok((attr.0[8] as usize, more))
}

/// Makes an array map with one entry of this many bytes.
pub(super) fn array_of_one(value: u32) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    let mut attr = Attr::new();
    // map_type, key_size, value_size, max_entries
    attr.0[..4].copy_from_slice(&[ARRAY, size_of::<u32>() as u32, value, 1]);
    bpf(cmd::MAP_CREATE, &mut attr).map(owned)
}

/// The map of this id, as a map of maps names its values.
pub(super) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new();
    attr.0[0] = id;
    bpf(cmd::MAP_GET_FD_BY_ID, &mut attr).map(owned)
}

/// Reads one entry. The map's key and value must be as long as what is given.
pub(super) fn map_get(map: BorrowedFd<'_>, key: &[u32], value: &mut [u32]) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = map.as_raw_fd() as u32;
    attr.set_pointer(2, key.as_ptr() as u64);
    attr.set_pointer(4, value.as_mut_ptr() as u64);
    bpf(cmd::MAP_LOOKUP_ELEM, &mut attr).map(drop)
}

/// Reads the value of a number. The map's value must be as long as `V`.
pub(super) fn map_get_value<V: aya::Pod>(
    map: BorrowedFd<'_>,
    key: u32,
    value: &mut V,
) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = map.as_raw_fd() as u32;
    attr.set_pointer(2, std::ptr::from_ref(&key) as u64);
    attr.set_pointer(4, std::ptr::from_mut(value) as u64);
    bpf(cmd::MAP_LOOKUP_ELEM, &mut attr).map(drop)
}

/// The key after this one, or the first; `None` after the last.
pub(super) fn next_key(map: BorrowedFd<'_>, key: Option<u32>) -> io::Result<Option<u32>> {
    let mut next = 0_u32;
    let mut attr = Attr::new();
    attr.0[0] = map.as_raw_fd() as u32;
    if let Some(key) = &key {
        attr.set_pointer(2, std::ptr::from_ref(key) as u64);
    }
    attr.set_pointer(4, std::ptr::from_mut(&mut next) as u64);
    match bpf(cmd::MAP_GET_NEXT_KEY, &mut attr) {
        Ok(_) => Ok(Some(next)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the entry of a number.
pub(super) fn map_delete(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = map.as_raw_fd() as u32;
    attr.set_pointer(2, std::ptr::from_ref(&key) as u64);
    bpf(cmd::MAP_DELETE_ELEM, &mut attr).map(drop)
}

/// Writes one entry. The map's key and value must be as long as what is given.
pub(super) fn map_put(map: BorrowedFd<'_>, key: &[u32], value: &[u32]) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = map.as_raw_fd() as u32;
    attr.set_pointer(2, key.as_ptr() as u64);
    attr.set_pointer(4, value.as_ptr() as u64);
    bpf(cmd::MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Writes all CPUs' values of a number. They must be as many, and as long, as the map's are.
pub(super) fn map_put_values<V: aya::Pod>(
    map: BorrowedFd<'_>,
    key: u32,
    values: &[V],
) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = map.as_raw_fd() as u32;
    attr.set_pointer(2, std::ptr::from_ref(&key) as u64);
    attr.set_pointer(4, values.as_ptr() as u64);
    bpf(cmd::MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Puts maps into a map of maps whose keys are numbers. Programs that run when this begins have ended when it
/// returns; since Linux 6.8 it waits for that once, not once for each. Kernel 5.14.
pub(super) fn map_put_maps(map: BorrowedFd<'_>, keys: &[u32], maps: &[OwnedFd]) -> io::Result<()> {
    let maps: Vec<u32> = maps.iter().map(|map| map.as_raw_fd() as u32).collect();
    if let ([_], [_]) = (keys, maps.as_slice()) {
        return map_put(map, keys, &maps);
    }
    update_batch(map, keys, &maps)
}

/// Writes entries of a map whose keys are numbers. Kernel 5.6.
pub(super) fn update_batch<V: aya::Pod>(
    map: BorrowedFd<'_>,
    keys: &[u32],
    values: &[V],
) -> io::Result<()> {
    let mut attr = Attr::new();
    // in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
    attr.set_pointer(4, keys.as_ptr() as u64);
    attr.set_pointer(6, values.as_ptr() as u64);
    attr.0[8] = keys.len().min(values.len()) as u32;
    attr.0[9] = map.as_raw_fd() as u32;
    bpf(cmd::MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// What names this thread's network namespace to the programs (`bpf_get_netns_cookie`). Kernel 5.14.
pub(super) fn netns_cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes no more bytes than told.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut len,
        )
    };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}

/// Waits until every CPU has passed through the scheduler, which is an RCU grace period: programs that
/// were running when it began have ended (membarrier(2), kernel 4.3).
pub(super) fn grace_period() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers.
    let ret = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Gives freed memory back to the system: a plan for thousands of services computes hundreds of megabytes of
/// tables, of which nothing is kept, and glibc would keep their pages for ever.
pub(super) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only takes back what nobody uses.
    unsafe {
        libc::malloc_trim(0)
    };
}
