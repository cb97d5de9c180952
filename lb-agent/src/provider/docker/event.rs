//! What the engine's events tell.

use std::{collections::HashMap, sync::Arc};

use super::container::Health;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A container.
    Container(Event),
    /// A service or a node of the Swarm. There are no events of tasks.
    Swarm,
}

/// One event of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The container's full id.
    pub(super) id: Arc<str>,
    /// What happened to it.
    pub(super) what: What,
    /// When, ns since 1970 by the engine's clock.
    pub(super) at: Option<i128>,
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It was sent this signal.
    Killed(u8),
    /// It ended, by whatever event.
    Ended,
    /// It is no more.
    Removed,
    /// It does not run for now.
    Paused,
    /// It was started.
    Started,
    /// Its own check says so.
    Health(Health),
    /// Something else about it is another now.
    Changed,
}

// === impl Told ===

impl Told {
    /// Reads an event's type, action, actor and the actor's attributes; `None` if it does not concern us. `at`: when it
    /// happened, ns since 1970.
    pub(super) fn read(
        kind: &str,
        action: &str,
        actor: &str,
        attributes: &HashMap<String, String>,
        at: Option<i128>,
    ) -> Option<Self> {
        match kind {
            "service" | "node" => Some(Self::Swarm),
            _ => {
                let event = Event::read(kind, action, actor, attributes)?;
                Some(Self::Container(Event { at, ..event }))
            }
        }
    }
}

// === impl Event ===

impl Event {
    /// Reads an event's type, action, actor and the actor's attributes; `None` if it concerns no container.
    fn read(
        kind: &str,
        action: &str,
        actor: &str,
        attributes: &HashMap<String, String>,
    ) -> Option<Self> {
        let (id, what) = match kind {
            "container" => (actor, what(action, attributes)?),
            "network" => (attributes.get("container")?.as_str(), What::Changed),
            _ => return None,
        };
        (!id.is_empty()).then(|| Self {
            id: id.into(),
            what,
            at: None,
        })
    }
}

fn what(action: &str, attributes: &HashMap<String, String>) -> Option<What> {
    Some(match action {
        "kill" => What::Killed(attributes.get("signal")?.parse().ok()?),
        "die" | "stop" => What::Ended,
        "destroy" => What::Removed,
        "pause" => What::Paused,
        "start" | "restart" => What::Started,
        "health_status: healthy" => What::Health(Health::Healthy),
        "health_status: unhealthy" => What::Health(Health::Unhealthy),
        "create" | "unpause" | "rename" | "update" | "health_status" => What::Changed,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, action: &str, attributes: &[(&str, &str)]) -> Option<What> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let attributes = attributes.iter().map(own).collect();
        Event::read(kind, action, "c1", &attributes).map(|event| event.what)
    }

    #[test]
    fn events_of_a_stop_tell_the_signal_and_the_end() {
        let signal = |number| [("signal", number)];
        assert_eq!(
            read("container", "kill", &signal("15")),
            Some(What::Killed(15))
        );
        assert_eq!(
            read("container", "die", &[("exitCode", "0")]),
            Some(What::Ended)
        );
        assert_eq!(read("container", "kill", &signal("SIGTERM")), None);
        assert_eq!(read("container", "kill", &[]), None);
    }

    #[test]
    fn an_event_of_a_network_is_one_of_the_container_in_it() {
        assert_eq!(
            read("network", "disconnect", &[("container", "c2")]),
            Some(What::Changed)
        );
        assert_eq!(read("network", "create", &[]), None);
        assert_eq!(read("image", "pull", &[]), None);
        assert_eq!(
            Told::read("image", "pull", "i", &HashMap::new(), None),
            None
        );
        assert_eq!(read("container", "exec_start: sh", &[]), None);
    }
}
