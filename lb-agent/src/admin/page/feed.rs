//! What changed since a reader last asked, as JSON: the body of `GET /v1/live?since=`.
//!
//! A service is written once per sample, however many ask, and sent only to those who do not have it as it is.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    Head,
    row::{self, Row},
};
use crate::admin::{
    report::{StatusReport, Timestamp},
    stats::{Sample, fields::Front, status},
};

/// The query of `/v1/live`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(in crate::admin) struct Since {
    /// `seq` of the last answer; 0: there was none.
    #[serde(default)]
    since: u64,
}

/// Every service as it was last written.
#[derive(Debug, Default)]
pub(in crate::admin) struct Feed(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Counts samples. It goes on from the clock of the start, so that no number of an agent before is taken for
    /// one of this.
    seq: u64,
    at: Timestamp,
    services: HashMap<u32, Written>,
    order: Written,
    about: Written,
}

#[derive(Debug, Default)]
struct Written {
    text: String,
    /// Since when it has been like this.
    seq: u64,
}

#[derive(Serialize)]
struct ServiceLine<'a> {
    id: u32,
    px: &'a str,
    name: Option<&'a str>,
    addrs: &'a [IpAddr],
    port: u16,
    proto: &'a str,
    algo: &'a str,
    mode: &'a str,
    external: &'a [u16],
    check: Option<&'a str>,
    failopen: bool,
    #[serde(rename = "F")]
    front: Row<'a>,
    #[serde(rename = "S")]
    servers: Vec<Row<'a>>,
    #[serde(rename = "B")]
    back: Row<'a>,
}

#[derive(Serialize)]
struct AgentLine<'a> {
    head: String,
    version: &'a str,
    node: &'a str,
    pid: u32,
    started: Timestamp,
    /// Since the counters were read, ms.
    age: u128,
}

/// Whatever else an operator should know.
#[derive(Serialize)]
struct AboutLine<'a> {
    sources: Vec<SourceLine<'a>>,
    warnings: &'a [String],
    /// Warnings beyond [`WARNINGS`].
    more: usize,
}

/// An orchestrator or a file.
#[derive(Serialize)]
struct SourceLine<'a> {
    id: &'a str,
    /// When it was last read well.
    read: Option<Timestamp>,
    /// Why the latest reading failed.
    error: Option<&'a str>,
    vips: usize,
    left_out: usize,
}

/// So many warnings are told; `lb-agent status` has them all.
const WARNINGS: usize = 100;

// === impl Feed ===

impl Feed {
    /// The answer to who has everything up to `since`.
    ///
    /// # Errors
    ///
    /// If a name cannot be written as JSON, which is not known to happen.
    pub(in crate::admin) fn answer(
        &self,
        sample: &Arc<Sample>,
        head: Head,
        Since { since }: Since,
    ) -> serde_json::Result<String> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.seq == 0 || told.at < sample.at {
            told.take(sample)?;
        }
        // A number that was never given is of an agent before.
        let since = if since > told.seq { 0 } else { since };
        let agent = &sample.report.agent;
        let agent = AgentLine {
            head: head.line(sample),
            version: &agent.version,
            node: &agent.node,
            pid: agent.pid,
            started: agent.started,
            age: Timestamp::now().since(told.at).as_millis(),
        };
        let mut answer = format!(
            "{{\"seq\":{},\"now\":{},\"admin\":{},\"agent\":{},\"cols\":{},",
            told.seq,
            told.at.0,
            head.orders,
            serde_json::to_string(&agent)?,
            serde_json::to_string(Row::NAMES)?,
        );
        for (name, part) in [("order", &told.order), ("about", &told.about)] {
            if part.seq > since {
                // Writing to a string cannot fail.
                let _ = write!(answer, "\"{name}\":{},", part.text);
            }
        }
        answer.push_str("\"services\":[");
        let mut first = true;
        for written in told.services.values().filter(|one| one.seq > since) {
            if !first {
                answer.push(',');
            }
            first = false;
            answer.push_str(&written.text);
        }
        answer.push_str("]}");
        Ok(answer)
    }
}

// === impl Told ===

impl Told {
    fn take(&mut self, sample: &Sample) -> serde_json::Result<()> {
        self.seq = (self.seq + 1).max(sample.report.agent.started.0);
        self.at = sample.at;
        let mut order = Vec::with_capacity(sample.proxies.len());
        for front in Front::all(sample) {
            let iid = front.proxy.iid;
            order.push(iid);
            let text = serde_json::to_string(&line(front))?;
            self.services.entry(iid).or_default().put(text, self.seq);
        }
        let stays: HashSet<u32> = order.iter().copied().collect();
        self.services.retain(|iid, _| stays.contains(iid));
        self.order.put(serde_json::to_string(&order)?, self.seq);
        let about = serde_json::to_string(&about(&sample.report))?;
        self.about.put(about, self.seq);
        Ok(())
    }
}

// === impl Written ===

impl Written {
    fn put(&mut self, text: String, seq: u64) {
        if text != self.text {
            *self = Self { text, seq };
        }
    }
}

fn about(report: &StatusReport) -> AboutLine<'_> {
    let sources = report.providers.iter().map(|provider| SourceLine {
        id: &provider.id,
        read: provider.last_sync,
        error: provider.last_error.as_ref().map(|error| &*error.reason),
        vips: provider.pools,
        left_out: provider.problems.len(),
    });
    let told = report.warnings.len().min(WARNINGS);
    AboutLine {
        sources: sources.collect(),
        warnings: &report.warnings[..told],
        more: report.warnings.len() - told,
    }
}

fn line(front: Front<'_>) -> ServiceLine<'_> {
    let service = front.service;
    ServiceLine {
        id: front.proxy.iid,
        px: &front.proxy.name,
        name: service.name.as_deref(),
        addrs: &service.addrs,
        port: service.port.get(),
        proto: service.protocol.as_str(),
        algo: status::algorithm(&service.algorithm),
        mode: &service.mode,
        external: &service.external,
        check: service.check.as_deref(),
        failopen: service.fail_open,
        front: row::frontend(front),
        servers: row::servers(front).collect(),
        back: row::backend(front),
    }
}
