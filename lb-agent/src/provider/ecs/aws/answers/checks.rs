//! How load balancers check their targets, as checks of ours.

use crate::{
    catalog::Check,
    provider::{
        check::{Draft, LONGEST_TIMEOUT},
        values::decimal,
    },
};

/// How often, how long and how many, as AWS writes it; what is empty is as without a load balancer.
pub(super) struct Numbers<'a> {
    /// s.
    pub(super) interval: &'a str,
    /// s.
    pub(super) timeout: &'a str,
    /// In a row.
    pub(super) healthy: &'a str,
    /// In a row.
    pub(super) unhealthy: &'a str,
}

// === impl Numbers ===

impl Numbers<'_> {
    /// Completes a check.
    ///
    /// # Errors
    /// The first number that is wrong.
    pub(super) fn complete(&self, mut draft: Draft) -> Result<Check, String> {
        let Self {
            interval,
            timeout,
            healthy,
            unhealthy,
        } = *self;
        // A target group may wait for two minutes.
        let most = LONGEST_TIMEOUT.as_secs();
        let is_longer = decimal(timeout).is_some_and(|seconds| u64::from(seconds) > most);
        let most = most.to_string();
        let timeout = if is_longer { &most } else { timeout };
        for (key, value, unit) in [
            ("interval", interval, "s"),
            ("timeout", timeout, "s"),
            ("rise", healthy, ""),
            ("fall", unhealthy, ""),
        ] {
            if !value.is_empty() {
                let set = draft.set(key, &format!("{value}{unit}"));
                set.map_err(|why| format!("{key}: {why}"))?;
            }
        }
        draft.finish()
    }
}

/// A request for `path`.
///
/// # Errors
/// What is wrong with the path, or with the status codes that are good.
pub(super) fn request(path: &str, codes: &str) -> Result<Draft, String> {
    let mut draft = Draft::http(if path.is_empty() { "/" } else { path })?;
    draft
        .set("expect", codes)
        .map_err(|why| format!("status codes: {why}"))?;
    Ok(draft)
}

/// What needs more than HTTP/1.1 in plain text: `spoken` is what the load balancer speaks.
pub(super) fn connection(spoken: &str, notes: &mut Vec<String>) -> Draft {
    notes.push(format!(
        "its health check speaks {spoken}, ours does not: a connection that is accepted is enough"
    ));
    Draft::tcp()
}

/// The check, or a note that there is none.
pub(super) fn unless_wrong(
    read: Result<Option<Check>, String>,
    notes: &mut Vec<String>,
) -> Option<Check> {
    read.unwrap_or_else(|why| {
        notes.push(format!("its health check is not taken over: {why}"));
        None
    })
}
