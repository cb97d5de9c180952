//! Signals by name: an image says `SIGQUIT`, the event of a `kill` says 3.

/// SIGTERM, which stops a container that names no other signal.
pub(super) const TERM: u8 = 15;
/// SIGKILL.
pub(super) const KILL: u8 = 9;
/// The first real-time signal that the C library leaves free, and the last.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// In the order of their numbers on Linux (x86 and ARM), from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
pub(super) fn number(text: &str) -> Option<u8> {
    let text = text.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    if let Some(by) = name.strip_prefix("RTMIN") {
        return real_time(RTMIN, by);
    }
    if let Some(by) = name.strip_prefix("RTMAX") {
        return real_time(RTMAX, by);
    }
    let at = NAMES.iter().position(|known| *known == name)?;
    u8::try_from(at + 1).ok()
}

fn real_time(from: u8, by: &str) -> Option<u8> {
    let by: i16 = if by.is_empty() { 0 } else { by.parse().ok()? };
    let number = u8::try_from(i16::from(from) + by).ok()?;
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_number_however_it_is_written() {
        for (text, expected) in [
            ("SIGTERM", TERM),
            ("term", TERM),
            ("15", TERM),
            ("SIGQUIT", 3),
            ("SIGKILL", KILL),
            ("SIGWINCH", 28),
            ("SIGRTMIN+3", 37),
            ("SIGRTMIN", 34),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "SIG",
            "0",
            "65",
            "-9",
            "SIGRTMIN+99",
            "SIGRTMIN-1",
            "NOSUCH",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
