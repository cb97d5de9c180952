//! Pure: HAProxy's words for states.

use std::borrow::Cow;

use crate::admin::report::{BackendReport, BackendState};

/// Every word that a server's metric knows.
pub(crate) const SERVER: [&str; 5] = ["UP", "DOWN", "MAINT", "DRAIN", "NOLB"];
/// Every word that a frontend's and a backend's metric knows.
pub(crate) const PROXY: [&str; 2] = ["UP", "DOWN"];

/// Every result of a check, and what orchestrators say in the place of one.
pub(crate) const CHECK: [&str; 10] = [
    "INI", "L4OK", "L4CON", "L4TOUT", "L7OK", "L7STS", "L7RSP", "L7TOUT", "PROCOK", "PROCERR",
];

/// A server's word without its fraction.
pub(crate) fn word(backend: &BackendReport) -> &'static str {
    let why = backend.why.as_deref().unwrap_or_default();
    match backend.state {
        BackendState::Active | BackendState::Standby => "UP",
        BackendState::Down => "DOWN",
        BackendState::Maintenance => "MAINT",
        BackendState::Draining if why.starts_with("weight 0") => "UP",
        BackendState::Draining if why.starts_with("unhealthy") => "DOWN",
        BackendState::Draining if why.starts_with("maintenance") => "MAINT",
        BackendState::Draining if why.starts_with("stopping") => "NOLB",
        BackendState::Draining if why == "no health result yet" || why == "not ready" => "NOLB",
        BackendState::Draining => "DRAIN",
    }
}

/// A server's status: only while its checks are about to change their mind it has a fraction.
pub(crate) fn text(backend: &BackendReport) -> Cow<'static, str> {
    let word = word(backend);
    let Some(probe) = backend
        .health
        .probe
        .as_ref()
        .filter(|probe| probe.against > 0 && backend.health.forced.is_none())
    else {
        return word.into();
    };
    let (rise, fall) = (probe.rise, probe.fall);
    match (backend.state, probe.up) {
        (BackendState::Active | BackendState::Standby, true) => {
            let left = fall.saturating_sub(probe.against).max(1);
            format!("{word} {left}/{fall}").into()
        }
        (BackendState::Down, false) => {
            let passed = probe.against.min(rise.saturating_sub(1));
            match passed {
                0 => word.into(),
                passed => format!("{word} {passed}/{rise}").into(),
            }
        }
        _ => word.into(),
    }
}

/// HAProxy's `check_health`: 0 to rise + fall - 1, up from `rise` on.
pub(crate) fn check_health(backend: &BackendReport) -> Option<u64> {
    let probe = backend.health.probe.as_ref()?;
    let (rise, fall) = (u64::from(probe.rise), u64::from(probe.fall));
    let against = u64::from(probe.against);
    Some(match probe.up {
        true => (rise + fall).saturating_sub(1 + against).max(rise),
        false => against.min(rise.saturating_sub(1)),
    })
}

/// The result of a server's last check, one of [`CHECK`]; `checked`: its service has it checked. `None`: nobody says
/// how it is.
pub(crate) fn check(backend: &BackendReport, checked: bool) -> Option<&'static str> {
    let health = &backend.health;
    if health.unchecked {
        return None;
    }
    if let Some(probe) = &health.probe {
        return CHECK.into_iter().find(|known| *known == probe.result);
    }
    let why = backend.why.as_deref().unwrap_or_default();
    match (checked, why.starts_with("unhealthy")) {
        (true, _) => Some("INI"),
        (false, true) => Some("PROCERR"),
        (false, false) => backend.declared.healthy.then_some("PROCOK"),
    }
}

/// HAProxy's sentence for a check's result.
pub(crate) fn description(result: &str) -> &'static str {
    match result {
        "L4OK" => "Layer4 check passed",
        "L4CON" => "Layer4 connection problem",
        "L4TOUT" => "Layer4 timeout",
        "L7OK" => "Layer7 check passed",
        "L7STS" => "Layer7 wrong status",
        "L7RSP" => "Layer7 invalid response",
        "L7TOUT" => "Layer7 timeout",
        "PROCOK" => "External check passed",
        "PROCERR" => "External check error",
        _ => "",
    }
}

/// HAProxy's word for a way to choose backends.
pub(crate) fn algorithm(name: &str) -> &str {
    match name {
        "least-conn" => "leastconn",
        "round-robin" => "roundrobin",
        name => name,
    }
}
