//! Which events call for a snapshot. Events carry no state: they only say that there may be news.

use serde::Deserialize;

use super::sse::Event;

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

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "eventType")]
    event_type: Option<String>,
}

/// Whether the event schedules a snapshot. One that cannot be parsed does, whatever its name.
pub(super) fn is_news(event: &Event) -> bool {
    if event.cut {
        return true;
    }
    let Ok(body) = serde_json::from_slice::<Body>(&event.data) else {
        return true;
    };
    let name = if event.name.is_empty() {
        body.event_type.as_deref()
    } else {
        Some(&*event.name)
    };
    name.is_none_or(|name| !WITHOUT_NEWS.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::marathon::sse::Parser;

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
