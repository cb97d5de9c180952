//! Instants as orchestrators write them.

/// Nanoseconds since 1970 of an ISO 8601 instant such as `2024-03-05T08:59:58.870Z`.
pub(in crate::provider) fn instant(text: &str) -> Option<i128> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone_at = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.splitn(3, ':').map(number);
    let (hour, minute, second) = (
        parts.next()??,
        parts.next()??,
        parts.next().unwrap_or(Some(0))?,
    );
    let nanos = if fraction.is_empty() {
        0
    } else {
        number(&format!("{fraction:0<9.9}"))?
    };
    let offset = match zone.split_at(1) {
        ("Z", "") => 0,
        (sign, zone) => {
            let (hours, minutes) = zone.split_once(':').or_else(|| zone.split_at_checked(2))?;
            let minutes = number(hours)? * 60 + number(minutes)?;
            if sign == "-" { -minutes } else { minutes }
        }
    };
    let seconds = days(year, month, day)? * 86_400 + hour * 3_600 + (minute - offset) * 60 + second;
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
}

/// Up to nine digits.
fn number(digits: &str) -> Option<i64> {
    let fits = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten()
}

/// Days since 1970-01-01 in the Gregorian calendar; a year starts in March, so that the leap day
/// is its last.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 9_999 {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
            - 719_468,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    #[test]
    fn instants_are_read_as_times_not_as_text() {
        assert_eq!(instant("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(
            instant("2024-03-05T08:59:58.870Z"),
            Some(1_709_629_198_870_000_000)
        );
        assert_eq!(
            instant("2024-02-29T23:59:59Z").unwrap() + SECOND,
            instant("2024-03-01T00:00:00Z").unwrap()
        );
        assert_eq!(
            instant("2024-03-05T09:59:58.87+01:00"),
            instant("2024-03-05T08:59:58.870Z")
        );
        assert_eq!(
            instant("2024-03-05T03:59:58.87-0500"),
            instant("2024-03-05T08:59:58.870Z")
        );
        assert_eq!(
            instant("2024-03-05T08:59Z"),
            instant("2024-03-05T08:59:00.0Z")
        );
    }

    #[test]
    fn what_is_not_an_instant_is_none() {
        for text in [
            "",
            "now",
            "2024-03-05",
            "2024-03-05T08:59:58",
            "2024-13-05T08:59:58Z",
            "2024-03-05TZ",
            "2024-03-05T08:59:58.x70Z",
            "2024-03-05T08:59:58Zx",
            "2024-03-05T08:59:58+é1",
            "99999999999-03-05T08:59:58Z",
            "-1-2-3T4:5:6Z",
            "2024-03-05T08:59:58.ééééZ",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}
