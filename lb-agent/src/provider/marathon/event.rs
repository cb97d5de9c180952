//! Which events call for reading what. Events carry no state: they only say that there may be news.

use std::collections::BTreeSet;

use serde_json::Value;

use super::sse::Event;

/// From so many apps on, everything is read at once.
const MOST_APPS: usize = 32;

/// Events after which no VIP can have changed. Everything else counts, unknown types included.
const WITHOUT_NEWS: &[&str] = &[
    "deployment_failed",
    "deployment_info",
    "deployment_step_failure",
    "deployment_step_success",
    "event_stream_attached",
    "event_stream_detached",
    "failed_health_check_event",
    "framework_message_event",
    "group_change_failed",
    "scheduler_disconnected_event",
    "scheduler_registered_event",
    "scheduler_reregistered_event",
];

/// What may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Touched {
    /// Nothing that is read.
    #[default]
    Nothing,
    /// These apps, by id.
    Apps(BTreeSet<String>),
    /// Anything.
    Everything,
}

/// What the event says may have changed; anything, if it cannot be parsed, whatever its name.
pub(super) fn touched(event: &Event) -> Touched {
    if event.cut {
        return Touched::Everything;
    }
    let Ok(body) = serde_json::from_slice::<Value>(&event.data) else {
        return Touched::Everything;
    };
    let name = match event.name.as_str() {
        "" => body["eventType"].as_str().unwrap_or_default(),
        name => name,
    };
    if WITHOUT_NEWS.contains(&name) {
        return Touched::Nothing;
    }
    let apps = match name {
        "status_update_event"
        | "health_status_changed_event"
        | "unhealthy_instance_kill_event"
        | "unhealthy_task_kill_event"
        | "app_terminated_event"
        | "add_health_check_event"
        | "remove_health_check_event" => one(&body["appId"]),
        // Of a pod, too: then there is no such app, and everything is read.
        "instance_changed_event"
        | "instance_health_changed_event"
        | "unknown_instance_terminated_event" => one(&body["runSpecId"]),
        "api_post_event" => one(&body["appDefinition"]["id"]),
        "deployment_success" => of_plan(&body["plan"]),
        _ => None,
    };
    apps.map_or(Touched::Everything, Touched::Apps)
}

fn one(id: &Value) -> Option<BTreeSet<String>> {
    let id = id
        .as_str()
        .filter(|id| id.len() > 1 && id.starts_with('/'))?;
    Some([id.to_owned()].into())
}

/// Every app that a deployment acted on; `None`: it acted on something else, too, or did not say.
fn of_plan(plan: &Value) -> Option<BTreeSet<String>> {
    let mut apps = BTreeSet::new();
    for step in plan["steps"].as_array()? {
        for action in step["actions"].as_array()? {
            apps.append(&mut one(&action["app"])?);
        }
    }
    (!apps.is_empty()).then_some(apps)
}

// === impl Touched ===

impl Touched {
    /// Both.
    pub(super) fn add(&mut self, other: Self) {
        *self = match (std::mem::take(self), other) {
            (Self::Nothing, other) | (other, Self::Nothing) => other,
            (Self::Apps(mut mine), Self::Apps(mut theirs)) => {
                mine.append(&mut theirs);
                Self::Apps(mine)
            }
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
        };
        if matches!(self, Self::Apps(apps) if apps.len() > MOST_APPS) {
            *self = Self::Everything;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::marathon::sse::Parser;

    fn is_news(event: &Event) -> bool {
        touched(event) != Touched::Nothing
    }

    fn apps<const N: usize>(ids: [&str; N]) -> Touched {
        Touched::Apps(ids.map(str::to_owned).into())
    }

    #[test]
    fn an_event_names_the_apps_that_it_is_about() {
        for (name, data, expected) in [
            ("status_update_event", r#"{"appId":"/a/b"}"#, apps(["/a/b"])),
            (
                "instance_changed_event",
                r#"{"runSpecId":"/a"}"#,
                apps(["/a"]),
            ),
            (
                "api_post_event",
                r#"{"appDefinition":{"id":"/a"}}"#,
                apps(["/a"]),
            ),
            (
                "deployment_success",
                r#"{"plan":{"steps":[{"actions":[{"app":"/a"},{"app":"/b"}]},{"actions":[{"app":"/a"}]}]}}"#,
                apps(["/a", "/b"]),
            ),
            (
                "deployment_success",
                r#"{"plan":{"steps":[{"actions":[{"app":"/a"},{"pod":"/p"}]}]}}"#,
                Touched::Everything,
            ),
            ("deployment_success", r#"{"id":"x"}"#, Touched::Everything),
            ("status_update_event", "{}", Touched::Everything),
            ("status_update_event", r#"{"appId":7}"#, Touched::Everything),
            (
                "status_update_event",
                r#"{"appId":"/"}"#,
                Touched::Everything,
            ),
            (
                "group_change_success",
                r#"{"groupId":"/a"}"#,
                Touched::Everything,
            ),
            (
                "pod_updated_event",
                r#"{"uri":"/v2/pods/a"}"#,
                Touched::Everything,
            ),
            (
                "",
                r#"{"eventType":"app_terminated_event","appId":"/a"}"#,
                apps(["/a"]),
            ),
        ] {
            assert_eq!(touched(&event(name, data)), expected, "{name} {data}");
        }
    }

    #[test]
    fn many_apps_are_everything() {
        let mut all = Touched::default();
        all.add(apps(["/a"]));
        all.add(Touched::Nothing);
        all.add(apps(["/b"]));
        assert_eq!(all, apps(["/a", "/b"]));
        for n in 0..40 {
            all.add(apps([&format!("/{n}")]));
        }
        assert_eq!(all, Touched::Everything);
        all.add(apps(["/a"]));
        assert_eq!(all, Touched::Everything);
    }

    fn event(name: &str, data: &str) -> Event {
        Event {
            name: name.to_owned(),
            data: data.into(),
            cut: false,
        }
    }

    #[test]
    fn twenty_one_of_the_25_recorded_events_call_for_a_snapshot() {
        let mut news = Vec::new();
        let stream = include_bytes!("fixtures/09-events.sse");
        Parser::default().feed(stream, |event| news.push(is_news(&event)));
        let without: Vec<usize> = (1..=25).filter(|n| !news[n - 1]).collect();
        assert_eq!(without, [1, 4, 14, 16]);
    }

    #[test]
    fn the_name_is_in_the_json_if_nowhere_else() {
        assert!(!is_news(&event("", r#"{"eventType":"deployment_info"}"#)));
        assert!(is_news(&event("", r#"{"eventType":"deployment_success"}"#)));
        assert!(is_news(&event("", "{}")));
    }

    #[test]
    fn what_is_unknown_or_not_json_calls_for_a_snapshot() {
        assert!(is_news(&event("some_future_event", "{}")));
        assert!(is_news(&event("deployment_info", "{")));
        assert!(is_news(&event("deployment_info", "{}{}")));
        assert!(is_news(&Event {
            cut: true,
            ..event("deployment_info", "{}")
        }));
    }
}
