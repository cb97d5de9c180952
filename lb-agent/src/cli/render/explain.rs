//! The lines of `explain`.

use super::plain;
use crate::look::{Candidate, Choice, Explanation, FlowReport, Passed, ServiceView, Whose};

/// Backends listed at most; a service may have thousands.
const BACKENDS: usize = 10;
/// Backends passed over that are listed at most.
const PASSED: usize = 5;

/// The whole of `lb-agent explain`: a word in front, then a sentence.
pub(in crate::cli) fn explanation(told: &Explanation) -> String {
    let mut page = String::new();
    let mut lines = vec![(
        "",
        format!("{} {} -> {}", told.protocol, told.client, told.vip),
    )];
    match &told.service {
        Some(service) => lines.push(("service", view(service))),
        None => lines.push(("service", nothing(told.address).to_owned())),
    }
    if let Some(source) = &told.source {
        let word = if source.allowed {
            "allowed"
        } else {
            "not allowed"
        };
        lines.push(("source", format!("{word}: {}", plain(&source.why))));
    }
    if let Some(flow) = &told.flow {
        lines.push(("flow", existing(flow)));
    } else if !told.local && told.service.is_some() {
        lines.push(("flow", "none".to_owned()));
    }
    if let Some(lost) = &told.lost {
        lines.push(("", plain(lost)));
    }
    for one in told.backends.iter().take(BACKENDS) {
        lines.push(("backend", candidate(one, told)));
    }
    let more = told.backends.len().saturating_sub(BACKENDS);
    if more > 0 {
        lines.push(("", format!("{more} more backends")));
    }
    if let Some(choice) = &told.choice {
        let passed = choice.passed_over.iter();
        lines.extend(
            passed
                .take(PASSED)
                .map(|passed| ("passed", passed_over(passed))),
        );
        let more = choice.passed_over.len().saturating_sub(PASSED);
        if more > 0 {
            lines.push(("", format!("{more} more slots")));
        }
    }
    lines.push(("outcome", outcome(told)));
    for (word, text) in lines {
        if word.is_empty() && page.is_empty() {
            page.push_str(&text);
        } else {
            page.push_str(&format!("{word:<9}{text}"));
        }
        page.push('\n');
    }
    page
}

fn view(service: &ServiceView) -> String {
    let name = service
        .name
        .as_deref()
        .map_or_else(|| "an IP VIP".to_owned(), plain);
    let mut text = format!(
        "{name}, number {}: {}, mode {}, table of {} slots",
        service.id,
        plain(&service.algorithm),
        plain(&service.mode),
        service.slots
    );
    if service.affinity_s > 0 {
        text.push_str(&format!(", affinity for {} s", service.affinity_s));
    }
    if service.max_flows > 0 {
        text.push_str(&format!(
            ", {} of {} flows",
            service.flows, service.max_flows
        ));
    }
    if service.fail_open {
        text.push_str(", all its backends are down, so that down counts as active");
    }
    text
}

fn nothing(address: Whose) -> &'static str {
    match address {
        Whose::Vip => "none: the address is a VIP, but nothing stands at this port and protocol",
        Whose::Node => "none: the address is the node's own, and this port is not ours",
        Whose::Foreign => "none: the address is not one of ours",
    }
}

fn existing(flow: &FlowReport) -> String {
    let backend = flow.backend;
    let backend = backend.map_or_else(|| "a backend that is gone".to_owned(), |at| at.to_string());
    format!(
        "to {backend} by {}, {}, idle for {} s",
        flow.how, flow.state, flow.idle_s
    )
}

fn candidate(one: &Candidate, told: &Explanation) -> String {
    let Candidate {
        backend,
        state,
        slots,
        flows,
        max_flows,
    } = one;
    let all = told
        .service
        .as_ref()
        .map_or(0, |service| service.slots)
        .max(1);
    let share = f64::from(*slots) * 100.0 / f64::from(all);
    let mut text = format!("{backend} {}, {share:.1}% of the slots", plain(state));
    if !told.local {
        text.push_str(&format!(", {flows} flows"));
        if *max_flows > 0 {
            text.push_str(&format!(" of {max_flows}"));
        }
    }
    text
}

fn passed_over(passed: &Passed) -> String {
    let backend = passed.backend;
    let backend = backend.map_or_else(|| "nobody".to_owned(), |at| at.to_string());
    format!("{backend} in slot {}: {}", passed.slot, plain(&passed.why))
}

fn outcome(told: &Explanation) -> String {
    if let Some(refused) = &told.refused {
        return format!("{} ({})", plain(&refused.then), plain(&refused.reason));
    }
    if let Some(choice) = &told.choice {
        return chosen(choice);
    }
    match &told.flow {
        Some(FlowReport {
            backend: Some(backend),
            ..
        }) if told.lost.is_none() => format!("goes on to {backend}"),
        _ => "left to the network stack, untouched".to_owned(),
    }
}

fn chosen(choice: &Choice) -> String {
    let how = choice
        .how
        .map_or_else(String::new, |how| format!(" by {how}"));
    let slot = choice
        .slot
        .map_or_else(String::new, |slot| format!("slot {slot}, "));
    let lead = if choice.certain { "" } else { "perhaps " };
    format!(
        "{lead}{}{how}: {slot}{}",
        choice.backend,
        plain(&choice.why)
    )
}
