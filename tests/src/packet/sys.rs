//! The system calls that no library in use makes for us.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya::maps::{Map, MapData};

/// `BPF_PROG_TEST_RUN`, `include/uapi/linux/bpf.h`.
const PROG_TEST_RUN: libc::c_long = 10;
/// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`, kernel 5.6.
const TAKE_BATCH: libc::c_long = 25;
/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE`, kernel 6.16.
const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// The member `test` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// The member `batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Moves this thread into a network namespace of its own, which ends with the thread.
pub(crate) fn new_network() -> io::Result<()> {
    // SAFETY: no pointers; only the network view of this thread changes.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a frame as it is out of the interface of this index, in the network of this thread.
pub(super) fn send_frame(ifindex: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: no pointers.
    let socket = match unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: it was just made, and nobody else has it.
        fd => unsafe { OwnedFd::from_raw_fd(fd) },
    };
    // SAFETY: all-zero bytes are a value of this C struct.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = ifindex as i32;
    // SAFETY: frame and address are as long as told, and outlive the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    match usize::try_from(sent) {
        Ok(sent) if sent == frame.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Runs a tc program on a packet that the device has summed (`CHECKSUM_COMPLETE`); the kernel answers
/// `EBADMSG` if the program leaves that sum wrong, and `EINVAL` if it cannot check (before 6.16). Gives the verdict
/// and how many bytes came out.
pub(super) fn run_summed(
    program: BorrowedFd<'_>,
    packet: &[u8],
    out: &mut [u8],
) -> io::Result<(u32, u32)> {
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_size_out: out.len() as u32,
        data_in: packet.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        flags: CHECKSUM_COMPLETE,
        ..TestRun::default()
    };
    // SAFETY: both buffers are as long as told and outlive the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_TEST_RUN,
            std::ptr::from_mut(&mut attr),
            size_of::<TestRun>(),
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((attr.retval, attr.data_size_out))
}

/// Entries that are taken out by one call.
const TAKEN: u32 = 16_384;

/// Empties an LRU hash map, thousands of entries by a call.
pub(crate) fn empty(map: &Map) -> io::Result<()> {
    let Map::LruHashMap(map) = map else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let info = map.info().map_err(io::Error::other)?;
    let mut keys = vec![0_u8; (info.key_size() * TAKEN) as usize];
    let mut values = vec![0_u8; (info.value_size().next_multiple_of(8) * TAKEN) as usize];
    let mut bucket = 0_u32;
    let mut first = true;
    loop {
        let mut attr = Batch {
            in_batch: if first { 0 } else { &raw const bucket as u64 },
            out_batch: &raw mut bucket as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: TAKEN,
            map_fd: fd(map).as_raw_fd() as u32,
            ..Batch::default()
        };
        // SAFETY: room for `count` keys and values, and for a bucket's number; all outlive the call.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                TAKE_BATCH,
                std::ptr::from_mut(&mut attr),
                size_of::<Batch>(),
            )
        };
        if ret < 0 {
            let error = io::Error::last_os_error();
            // The end of the table.
            return if error.raw_os_error() == Some(libc::ENOENT) {
                Ok(())
            } else {
                Err(error)
            };
        }
        first = false;
    }
}

fn fd(map: &MapData) -> BorrowedFd<'_> {
    map.fd().as_fd()
}
