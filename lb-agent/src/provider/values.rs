//! From the text of one value to its type; each error completes the sentence that names the key.

use std::{borrow::Cow, ops::RangeInclusive, sync::Arc, time::Duration};

use crate::catalog::{Port, Weight};

/// The longest text that is taken for a name or the value of a label, bytes.
pub(in crate::provider) const MOST_BYTES: usize = 4_096;

/// A name, as it is said: cut where it is longer than any that means something.
pub(in crate::provider) fn said(name: &str) -> &str {
    const MOST: usize = 128;
    &name[..name.floor_char_boundary(MOST)]
}

/// A sentence, of bearable length: what a foreign value makes longer is left out in the middle.
pub(in crate::provider) fn brief(sentence: &str) -> Cow<'_, str> {
    const HALF: usize = 256;
    let head = sentence.floor_char_boundary(HALF);
    let tail = sentence.ceil_char_boundary(sentence.len().saturating_sub(HALF));
    if tail <= head {
        return sentence.into();
    }
    format!("{} ... {}", &sentence[..head], &sentence[tail..]).into()
}

/// Digits only, without a sign.
pub(in crate::provider) fn decimal(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A number of at least 1.
pub(in crate::provider) fn count(text: &str) -> Result<u32, String> {
    let number = decimal(text).filter(|number| *number > 0);
    number.ok_or_else(|| format!("{text:?} is not a number from 1 to {}", u32::MAX))
}

/// A name, of any language and of bearable length.
pub(in crate::provider) fn name(text: &str) -> Result<Arc<str>, String> {
    match text.len() {
        ..=MOST_BYTES => Ok(text.into()),
        _ => Err(format!("it has more than {MOST_BYTES} bytes")),
    }
}

/// A port that something can listen on.
pub(in crate::provider) fn port(text: &str) -> Result<Port, String> {
    let port = decimal(text).and_then(|port| Port::new(port.try_into().ok()?));
    port.ok_or_else(|| format!("{text:?} is not a port (1-65535)"))
}

/// A backend's share of new flows.
pub(in crate::provider) fn weight(text: &str) -> Result<Weight, String> {
    let weight = decimal(text).and_then(|weight| Weight::new(weight.try_into().ok()?));
    weight.ok_or_else(|| format!("{text:?} is not a weight (0-256)"))
}

/// `true` or `false`.
pub(in crate::provider) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// `yes` or `no`, or as for [`flag`].
pub(in crate::provider) fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => flag(text).map_err(|_| format!("{text:?} is neither yes nor no")),
    }
}

/// A word without blanks, of at most 64 bytes.
pub(in crate::provider) fn word(text: &str) -> Result<&str, String> {
    const MOST: usize = 64;
    let blank = |c: char| c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > MOST || text.contains(blank) {
        return Err(format!(
            "{text:?} is not a word of 1 to {MOST} bytes without blanks"
        ));
    }
    Ok(text)
}

/// One of a few words.
pub(in crate::provider) fn choice<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        format!("{text:?} is not one of {}", words.join(", "))
    })
}

/// Seconds, from text such as `90s`, `10m`, `2h4m`: numbers with the units d, h, m, s, the larger ones first.
pub(in crate::provider) fn seconds(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let (least, most) = (range.start(), range.end());
    let wrong = |what: &str| format!("{text:?} is {what} such as 90s, 10m or 2h4m");
    let seconds = sum(text).ok_or_else(|| wrong("not a duration"))?;
    if !range.contains(&seconds) {
        return Err(format!(
            "{text:?} is not between {} and {}",
            shortest(*least),
            shortest(*most)
        ));
    }
    Ok(seconds)
}

/// How long a backend that is about to end keeps its flows, s, with the values of dockercloud/haproxy's `RELOAD_TIMEOUT`:
/// `-1` not at all, `0` as long as they last, which is `None`; a number of seconds, or as for [`seconds`], until then.
pub(crate) fn drain(text: &str) -> Result<Option<u32>, String> {
    const LONGEST: u32 = 30 * 86_400;
    match (text, decimal(text)) {
        ("-1", _) => Ok(Some(0)),
        (_, Some(0)) => Ok(None),
        (_, Some(number)) if number <= LONGEST => Ok(Some(number)),
        (_, Some(_)) => Err(format!("{text:?} is more than 30 days")),
        (_, None) => seconds(text, 1..=LONGEST)
            .map(Some)
            .map_err(|why| format!("{why}; -1 resets what is left at once, 0 leaves it alone")),
    }
}

/// A time from text such as `500ms`, or as for [`seconds`].
pub(in crate::provider) fn millis(
    text: &str,
    range: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let millis = text.strip_suffix("ms").map(decimal);
    let time = match millis {
        Some(millis) => millis.map(|millis| Duration::from_millis(millis.into())),
        None => sum(text).map(|seconds| Duration::from_secs(seconds.into())),
    };
    let time =
        time.ok_or_else(|| format!("{text:?} is not a duration such as 500ms, 2s or 10m"))?;
    if !range.contains(&time) {
        let bound = |bound: &Duration| match u32::try_from(bound.as_millis()) {
            Ok(millis) if millis % 1_000 != 0 => format!("{millis}ms"),
            _ => shortest(u32::try_from(bound.as_secs()).unwrap_or(u32::MAX)),
        };
        return Err(format!(
            "{text:?} is not between {} and {}",
            bound(range.start()),
            bound(range.end())
        ));
    }
    Ok(time)
}

const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

fn sum(text: &str) -> Option<u32> {
    let mut units = UNITS.iter();
    let mut sum = 0_u32;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number = decimal(&rest[..end]).filter(|_| end > 0)?;
        let unit = rest[end..].chars().next()?;
        let (_, length) = units.find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.checked_mul(*length)?)?;
        rest = &rest[end + unit.len_utf8()..];
    }
    (!text.is_empty()).then_some(sum)
}

/// In the largest unit that divides it.
fn shortest(seconds: u32) -> String {
    let whole = UNITS
        .iter()
        .find(|(_, length)| seconds.is_multiple_of(*length));
    whole.map_or_else(String::new, |(unit, length)| {
        format!("{}{unit}", seconds / length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_has_the_values_of_reload_timeout() {
        for (text, expected) in [
            ("-1", Some(0)),
            ("0", None),
            ("90", Some(90)),
            ("2m", Some(120)),
            ("2592000", Some(2_592_000)),
        ] {
            assert_eq!(drain(text), Ok(expected), "{text}");
        }
        for text in ["", "-2", "never", "1.5", "2592001", "31d", "0s"] {
            assert!(drain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_numbers_with_units_the_larger_first() {
        for (text, expected) in [
            ("90s", 90),
            ("10m", 600),
            ("2h4m", 7_440),
            ("1d", 86_400),
            ("1h0m5s", 3_605),
        ] {
            assert_eq!(seconds(text, 1..=86_400), Ok(expected), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "5m1h",
            "1s1s",
            "1.5h",
            "99999999d",
            "1é",
        ] {
            let refused = seconds(text, 1..=86_400).unwrap_err();
            assert!(refused.contains("is not a duration"), "{text}: {refused}");
        }
        assert_eq!(
            seconds("2d", 10..=86_400).unwrap_err(),
            "\"2d\" is not between 10s and 1d"
        );
    }

    #[test]
    fn a_sentence_with_a_long_value_keeps_its_ends() {
        assert_eq!(brief("short"), "short");
        let usual = "é".repeat(256);
        assert_eq!(brief(&usual), usual);
        let long = format!("key port: {:?} is not a port", "é".repeat(1 << 20));
        let told = brief(&long);
        assert!(told.len() < 600, "{}", told.len());
        assert!(told.starts_with("key port: \"é") && told.ends_with("é\" is not a port"));
    }

    #[test]
    fn numbers_have_digits_only() {
        assert_eq!(count("4294967295"), Ok(u32::MAX));
        for text in ["0", "", "-1", "+1", "1e3", "4294967296", "many"] {
            assert!(count(text).is_err(), "{text}");
        }
    }
}
