//! Tells of services and backends that came, went or changed their weight: in the log, and to whoever looks at events.

use std::collections::BTreeSet;

use tracing::info;

use super::{standing::title, wanted::endpoint};
use crate::{
    admin::stats::{Event, Events},
    catalog::{CatalogBackend, Desired, Drain, Notice},
    plan::Endpoint,
};

/// One line for each service or backend that came, went or changed its weight; those that were `adopted` did not
/// come.
pub(super) fn tell(before: &Desired, now: &Desired, adopted: &BTreeSet<Endpoint>, events: &Events) {
    for (key, service) in &now.services {
        let name = service.fqdn().unwrap_or_default();
        let old = before.services.get(key);
        if old.is_none() && !adopted.contains(&endpoint(key)) {
            info!(service = %key, name, backends = service.backends.len(), "service added");
            events.push(Event::of_service("service added", title(key, service)));
        }
        let Some(old) = old else { continue };
        let event = |what, backend: &CatalogBackend| Event {
            backend: Some(backend.addr),
            ..Event::of_service(what, title(key, service))
        };
        for backend in &service.backends {
            match old.backends.iter().find(|known| known.addr == backend.addr) {
                None => {
                    info!(service = %key, name, backend = %backend.addr, task = %backend.task, "backend added");
                    events.push(event("backend added", backend));
                }
                Some(known) if known.weight != backend.weight => {
                    let reason = backend.draining.map_or("", Drain::why);
                    info!(
                        service = %key, name, backend = %backend.addr,
                        from = known.weight.get(), to = backend.weight.get(), reason, "backend weight changed"
                    );
                    events.push(Event {
                        from: Some(known.weight.to_string()),
                        to: Some(backend.weight.to_string()),
                        reason: reason.to_owned(),
                        ..event("backend weight changed", backend)
                    });
                }
                Some(_) => {}
            }
        }
        for gone in &old.backends {
            if !service
                .backends
                .iter()
                .any(|backend| backend.addr == gone.addr)
            {
                info!(service = %key, name, backend = %gone.addr, "backend removed");
                events.push(event("backend removed", gone));
            }
        }
    }
    for (key, service) in &before.services {
        if !now.services.contains_key(key) {
            let reason = match now.empty.contains_key(key) {
                true => "its last backend is gone",
                false => "",
            };
            info!(service = %key, name = service.fqdn().unwrap_or_default(), reason, "service removed");
            events.push(Event {
                reason: reason.to_owned(),
                ..Event::of_service("service removed", title(key, service))
            });
        }
    }
    for (at, of) in &now.external {
        if before.external.get(at) != Some(of) && !adopted.contains(&endpoint(at)) {
            info!(service = %of, %at, "port of this node added");
        }
    }
    for (at, of) in &before.external {
        if !now.external.contains_key(at) {
            info!(service = %of, %at, "port of this node removed");
        }
    }
}

/// For whoever looks at events.
pub(super) fn problem(notice: &Notice) -> Event {
    Event {
        what: "problem".to_owned(),
        reason: notice.to_string(),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::{
        catalog::{Service, ServiceKey, Weight},
        log,
    };

    fn desired(backends: Vec<CatalogBackend>) -> Desired {
        let service = Service {
            name: None,
            properties: Arc::default(),
            backends,
        };
        Desired {
            services: [(ServiceKey::tcp("11.0.0.1:80"), service)].into(),
            ..Desired::default()
        }
    }

    fn drained(addr: &str) -> CatalogBackend {
        CatalogBackend {
            weight: Weight::DRAIN,
            draining: Some(Drain::unfit("unhealthy")),
            ..CatalogBackend::plain(addr)
        }
    }

    /// What is said of a change, and how many hear of it besides.
    fn told(before: &Desired, now: &Desired, adopted: &[Endpoint]) -> (Vec<String>, usize) {
        let events = Events::default();
        let adopted = adopted.iter().copied().collect();
        let lines = log::tests::told(|| tell(before, now, &adopted, &events));
        let words = |line: &Value| {
            let fields = ["message", "service", "backend", "from", "to", "reason"];
            let text = |field: &str| match &line[field] {
                Value::Null => "-".to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            fields.map(text).join(" | ")
        };
        (lines.iter().map(words).collect(), events.after(0).len())
    }

    #[test]
    fn each_change_is_one_line_that_names_service_and_backend() {
        const SERVICE: &str = "11.0.0.1:80/tcp";
        let (none, plain) = (Desired::default(), CatalogBackend::plain);
        let one = desired(vec![plain("10.0.0.1:80")]);
        let two = desired(vec![plain("10.0.0.1:80"), plain("10.0.0.2:80")]);
        let drains = desired(vec![drained("10.0.0.1:80"), plain("10.0.0.2:80")]);
        for (before, now, expected) in [
            (
                &none,
                &one,
                format!("service added | {SERVICE} | - | - | - | -"),
            ),
            (
                &one,
                &two,
                format!("backend added | {SERVICE} | 10.0.0.2:80 | - | - | -"),
            ),
            (
                &two,
                &drains,
                format!("backend weight changed | {SERVICE} | 10.0.0.1:80 | 1 | 0 | unhealthy"),
            ),
            (
                &two,
                &one,
                format!("backend removed | {SERVICE} | 10.0.0.2:80 | - | - | -"),
            ),
            (
                &one,
                &none,
                format!("service removed | {SERVICE} | - | - | - | "),
            ),
        ] {
            assert_eq!(told(before, now, &[]), (vec![expected], 1));
        }
        assert_eq!(told(&two, &two, &[]), (vec![], 0), "nothing changed");
    }

    #[test]
    fn what_an_agent_takes_over_did_not_come() {
        let now = desired(vec![CatalogBackend::plain("10.0.0.1:80")]);
        let adopted = endpoint(&ServiceKey::tcp("11.0.0.1:80"));
        assert_eq!(told(&Desired::default(), &now, &[adopted]), (vec![], 0));
    }
}
