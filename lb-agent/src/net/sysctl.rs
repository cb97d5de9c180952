//! Port ranges of the network namespace that this process is in.

use std::{fs, io};

const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// First and last port that the kernel gives to sockets by itself (`ip_local_port_range`; both families).
///
/// # Errors
///
/// If it cannot be read.
pub fn local_port_range() -> io::Result<(u16, u16)> {
    let text = fs::read_to_string(LOCAL_RANGE)?;
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(low)), Some(Ok(high))) => Ok((low, high)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{LOCAL_RANGE} says {text:?}"),
        )),
    }
}

/// Keeps the kernel from giving `min..=max` to sockets (`ip_local_reserved_ports`). Gives the value that
/// was there before, or `None` if nothing had to change.
///
/// # Errors
///
/// If it cannot be read or written.
pub fn reserve_ports(min: u16, max: u16) -> io::Result<Option<String>> {
    let before = fs::read_to_string(RESERVED)?.trim().to_owned();
    if covers(&before, min, max) {
        return Ok(None);
    }
    let range = format!("{min}-{max}");
    let all = if before.is_empty() {
        range
    } else {
        format!("{before},{range}")
    };
    fs::write(RESERVED, all)?;
    Ok(Some(before))
}

/// Puts back what [`reserve_ports`] found.
///
/// # Errors
///
/// If it cannot be written.
pub fn restore_reserved_ports(before: &str) -> io::Result<()> {
    // An empty write is no write; a blank line clears the list.
    fs::write(RESERVED, format!("{before}\n"))
}

fn covers(list: &str, min: u16, max: u16) -> bool {
    list.split(',').any(|range| {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        matches!((low.parse::<u16>(), high.parse::<u16>()), (Ok(low), Ok(high)) if low <= min && max <= high)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_reserved_only_if_one_entry_holds_all_of_it() {
        assert!(covers("8080,61001-65535", 61001, 65535));
        assert!(!covers("61001-65534", 61001, 65535));
        assert!(!covers("", 61001, 65535));
        assert!(covers("80", 80, 80));
    }
}
