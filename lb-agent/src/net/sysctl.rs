//! The kernel's ports: which it hands out by itself, and which it must leave to our source NAT.
//!
//! `/proc/sys/net` shows the network namespace of the thread that reads it.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    ops::RangeInclusive,
};

const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Longer than any list of port ranges: 32,768 single ports of five digits, and their commas.
const LONGEST: usize = 256 * 1024;

/// `net.ipv4.ip_local_port_range`: the first and last port that the kernel picks by itself, both families.
///
/// # Errors
/// When the file cannot be read or holds no two ports.
pub fn local_port_range() -> io::Result<(u16, u16)> {
    let text = read(LOCAL_RANGE)?;
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok((first, last)),
        _ => Err(malformed(LOCAL_RANGE, &text)),
    }
}

/// Whether the node forwards what comes in by an interface. `None` where it does not say: no such
/// interface, or the kernel knows no IPv6.
pub fn forwards(iface: &str, ipv6: bool) -> Option<bool> {
    let family = if ipv6 { "ipv6" } else { "ipv4" };
    let text = read(&format!("/proc/sys/net/{family}/conf/{iface}/forwarding")).ok()?;
    Some(text.trim() != "0")
}

/// Adds the ports `min..=max` to `net.ipv4.ip_local_reserved_ports`, so that no socket gets one without
/// asking for it; gives the previous value, for [`restore_reserved_ports`], or none if they all were
/// reserved already.
///
/// # Errors
/// When the file cannot be read or written, or `min` is above `max`.
pub fn reserve_ports(min: u16, max: u16) -> io::Result<Option<String>> {
    if min > max {
        let what = format!("{min}-{max} is no range of ports");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let previous = read(RESERVED)?.trim().to_owned();
    let ranges = parse(&previous).ok_or_else(|| malformed(RESERVED, &previous))?;
    if covers(&ranges, min, max) {
        return Ok(None);
    }
    let separator = if previous.is_empty() { "" } else { "," };
    fs::write(RESERVED, format!("{previous}{separator}{min}-{max}\n"))?;
    Ok(Some(previous))
}

/// Sets `net.ipv4.ip_local_reserved_ports` to what it was; what others added meanwhile is lost.
///
/// # Errors
/// When the kernel refuses the value.
pub fn restore_reserved_ports(previous: &str) -> io::Result<()> {
    // The line feed matters: writing nothing at all changes nothing.
    fs::write(RESERVED, format!("{}\n", previous.trim()))
}

/// The whole file in one `read()`: the kernel gives as much of a list as fits and then says it is at the
/// end (`proc_do_large_bitmap()` in kernel/sysctl.c), and [`fs::read_to_string`] begins with 32 bytes.
fn read(path: &str) -> io::Result<String> {
    let mut buffer = vec![0; LONGEST];
    let length = File::open(path)?.read(&mut buffer)?;
    buffer.truncate(length);
    String::from_utf8(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// `1-3,7` as ranges, in the order given; none if it is not that.
fn parse(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .collect()
}

fn covers(ranges: &[RangeInclusive<u16>], min: u16, max: u16) -> bool {
    (min..=max).all(|port| ranges.iter().any(|range| range.contains(&port)))
}

fn malformed(path: &str, text: &str) -> io::Error {
    let what = format!("{path} holds {:?}, which is no list of ports", text.trim());
    io::Error::new(io::ErrorKind::InvalidData, what)
}
