//! Which version of a definition a task runs, and what is known of older versions.
//!
//! A task belongs to the definition of its version: an update that adds a health check must not
//! drain the old tasks, which will never have a result.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    model::{Definition, Task},
    pod_model::{Pod, PodInstance, PodSpec},
    reading::{App, Reading},
    weight,
};

/// Names one immutable older version of an app or pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct VersionKey {
    /// App or pod id.
    pub(super) id: String,
    /// As Marathon writes it.
    pub(super) version: String,
}

/// What asking for a version gave.
#[derive(Clone, Debug)]
pub(super) enum Lookup<D> {
    /// It is known.
    Found(Arc<D>),
    /// Marathon does not have it (any more).
    Gone,
    /// Marathon could not be asked.
    Failed(String),
}

/// Older versions, as far as a reading needs them.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions {
    /// Of apps.
    pub(super) apps: HashMap<VersionKey, Lookup<Definition>>,
    /// Of pods.
    pub(super) pods: HashMap<VersionKey, Lookup<PodSpec>>,
}

/// The older versions that a reading needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needed {
    /// Of apps.
    pub(super) apps: BTreeSet<VersionKey>,
    /// Of pods.
    pub(super) pods: BTreeSet<VersionKey>,
}

/// Finds them: one per version that an active task still runs.
pub(super) fn needed(reading: &Reading) -> Needed {
    let mut needed = Needed::default();
    for app in &reading.apps {
        let active = app
            .tasks
            .iter()
            .filter(|t| weight::is_active(t.state.as_deref()));
        needed
            .apps
            .extend(active.filter_map(|task| of_task(app, task)));
    }
    for pod in &reading.pods {
        let active = |i: &&PodInstance| {
            i.containers
                .iter()
                .any(|c| weight::is_active(c.status.as_deref()))
        };
        let instances = pod.instances.iter().filter(active);
        needed
            .pods
            .extend(instances.filter_map(|instance| of_instance(pod, instance)));
    }
    needed
}

/// The older version that a task runs; `None`: the app as returned. Scaling alone moves an app's
/// version but not its `lastConfigChangeAt`.
pub(super) fn of_task(app: &App, task: &Task) -> Option<VersionKey> {
    let version = task.version.as_deref()?;
    let changed = app.last_config_change.as_deref()?;
    let older = instant(version)? < instant(changed)?;
    older.then(|| VersionKey {
        id: app.id.clone(),
        version: version.to_owned(),
    })
}

/// The older version that a pod instance runs; `None`: the latest.
pub(super) fn of_instance(pod: &Pod, instance: &PodInstance) -> Option<VersionKey> {
    let latest = pod.spec.version.as_deref()?;
    let (_, version) = instance
        .spec_reference
        .as_deref()?
        .rsplit_once("::versions/")?;
    let same =
        version == latest || (instant(version).is_some() && instant(version) == instant(latest));
    (!same).then(|| VersionKey {
        id: pod.id.clone(),
        version: version.to_owned(),
    })
}

/// Nanoseconds since 1970 of an ISO 8601 instant such as `2024-03-05T08:59:58.870Z`.
pub(super) fn instant(text: &str) -> Option<i128> {
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
