//! Commands that show something.

use std::{collections::HashMap, io, net::SocketAddr};

use super::{commands::Wrong, session::Session};
use crate::{
    admin::stats::{
        Sample,
        csv::{self, Wish},
        fields::{Back, Front},
        json, status,
    },
    look::Filter,
};

/// Flows that are shown at most.
const FLOWS: usize = 10_000;
/// When this version of the agent was made, for tools that insist on a date.
pub(in crate::admin) const RELEASED: &str = "2026/11/22";

type Answer = io::Result<Result<(), Wrong>>;

/// The lines of `show info`.
fn facts(sample: &Sample) -> Vec<(&'static str, String)> {
    let agent = &sample.report.agent;
    let up = sample.at.since(agent.started).as_secs();
    let (days, hours, minutes, seconds) = (up / 86_400, up / 3_600 % 24, up / 60 % 60, up % 60);
    let load = &sample.total;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    vec![
        ("Name", "HAProxy".to_owned()),
        ("Version", agent.version.clone()),
        ("Release_date", RELEASED.to_owned()),
        ("Nbthread", threads.to_string()),
        ("Nbproc", "1".to_owned()),
        ("Process_num", "1".to_owned()),
        ("Pid", agent.pid.to_string()),
        (
            "Uptime",
            format!("{days}d {hours}h{minutes:02}m{seconds:02}s"),
        ),
        ("Uptime_sec", up.to_string()),
        ("Maxconn", sample.flow_room().unwrap_or(0).to_string()),
        ("CurrConns", sample.flows_active.to_string()),
        ("CumConns", sample.flows_new.to_string()),
        ("ConnRate", load.rate.to_string()),
        ("MaxConnRate", load.rate_max.to_string()),
        ("SessRate", load.rate.to_string()),
        ("MaxSessRate", load.rate_max.to_string()),
        ("Maxpipes", "0".to_owned()),
        ("PipesUsed", "0".to_owned()),
        ("PipesFree", "0".to_owned()),
        ("Tasks", sample.proxies.len().to_string()),
        ("Run_queue", "0".to_owned()),
        ("Idle_pct", "100".to_owned()),
        ("node", agent.node.clone()),
        ("description", format!("lb-agent {}", agent.version)),
    ]
}

pub(super) async fn info(session: &mut Session) -> Answer {
    let sample = session.admin.stats.latest().await;
    let lines = facts(&sample).into_iter();
    let text: String = lines
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    session.send(&text).await?;
    Ok(Ok(()))
}

pub(super) async fn info_json(session: &mut Session) -> Answer {
    let sample = session.admin.stats.latest().await;
    let facts = facts(&sample).into_iter().enumerate();
    let list: Vec<_> = facts
        .map(|(place, (name, value))| {
            let value = match value.parse::<u64>() {
                Ok(number) => serde_json::json!({"type": "u64", "value": number}),
                Err(_) => serde_json::json!({"type": "str", "value": value}),
            };
            serde_json::json!({
                "field": {"pos": place, "name": name}, "processNum": 1,
                "tags": {"origin": "Metric", "nature": "Name", "scope": "Process"}, "value": value,
            })
        })
        .collect();
    session
        .send(&format!("{}\n", serde_json::Value::from(list)))
        .await?;
    Ok(Ok(()))
}

/// A line for each fact: its place, name and process, where it comes from, its type and value.
pub(super) async fn info_typed(session: &mut Session) -> Answer {
    let sample = session.admin.stats.latest().await;
    let facts = facts(&sample).into_iter().enumerate();
    let text: String = facts
        .map(|(place, (name, value))| {
            // HAProxy's letters: a metric's gauge, or an output of the product, of the process.
            let kind = match value.parse::<u64>() {
                Ok(_) => "MGP:u64",
                Err(_) => "POP:str",
            };
            format!("{place}.{name}.1:{kind}:{value}\n")
        })
        .collect();
    session.send(&text).await?;
    Ok(Ok(()))
}

pub(super) async fn version(session: &mut Session) -> Answer {
    let version = session
        .admin
        .stats
        .latest()
        .await
        .report
        .agent
        .version
        .clone();
    session.send(&format!("{version}\n")).await?;
    Ok(Ok(()))
}

/// `show stat [<iid> <type> <sid>]` and options; words that nobody knows are ignored.
pub(super) async fn stat(session: &mut Session, words: &[&str]) -> Answer {
    let mut wish = Wish::default();
    if let [iid, kind, sid, ..] = words
        && let (Ok(iid), Ok(kind), Ok(sid)) =
            (iid.parse::<i64>(), kind.parse::<i64>(), sid.parse::<i64>())
    {
        // What no proxy or server can have finds none.
        wish.iid = (iid >= 0).then(|| u32::try_from(iid).unwrap_or(0));
        wish.sid = (sid >= 0).then(|| u16::try_from(sid).unwrap_or(u16::MAX));
        wish.kinds = match kind {
            -1 => csv::kind::ALL,
            kind => u8::try_from(kind & 7).unwrap_or(0),
        };
    }
    wish.up = words.contains(&"up");
    wish.no_maint = words.contains(&"no-maint");
    let sample = session.admin.stats.latest().await;
    let mut text = String::new();
    if words.contains(&"json") {
        text.push('[');
        let mut empty = true;
        for front in Front::all(&sample) {
            let mut rows = String::new();
            json::haproxy(front, &wish, &mut rows);
            if let Some(rows) = rows.strip_suffix(',') {
                if !empty {
                    text.push(',');
                }
                empty = false;
                text.push_str(rows);
            }
            session.send_piece(&mut text).await?;
        }
        text.push_str("]\n");
    } else if words.contains(&"typed") {
        for front in Front::all(&sample) {
            json::typed(front, &wish, &mut text);
            session.send_piece(&mut text).await?;
        }
    } else {
        csv::header(&mut text);
        for front in Front::all(&sample) {
            csv::proxy(front, &wish, &mut text);
            session.send_piece(&mut text).await?;
        }
    }
    session.send(&text).await?;
    Ok(Ok(()))
}

pub(super) async fn backend(session: &mut Session) -> Answer {
    let sample = session.admin.stats.latest().await;
    let mut text = "# name\n".to_owned();
    for proxy in &sample.proxies {
        text.push_str(&proxy.name);
        text.push('\n');
    }
    session.send(&text).await?;
    Ok(Ok(()))
}

pub(super) async fn weight(session: &mut Session, server: &str) -> Answer {
    let sample = session.admin.stats.latest().await;
    let Some((proxy, server)) = server.split_once('/') else {
        return Ok(Err("Require 'backend/server'.".into()));
    };
    let Some(proxy) = sample.proxy(proxy) else {
        return Ok(Err("No such backend.".into()));
    };
    let Some(server) = proxy.server(server) else {
        return Ok(Err("No such server.".into()));
    };
    let backend = sample.backend(proxy, server);
    let text = format!("{} (initial {})\n", backend.weight, backend.declared.weight);
    session.send(&text).await?;
    Ok(Ok(()))
}

pub(super) async fn servers_state(session: &mut Session, words: &[&str]) -> Answer {
    const HEAD: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
                        srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
                        srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl \
                        srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n";
    each_server(session, words, HEAD, |back| {
        let (one, proxy) = (back.backend, back.front.proxy);
        let word = status::word(one);
        let op = match word {
            "UP" => 2,
            "DRAIN" | "NOLB" => 3,
            _ => 0,
        };
        let bits = match word {
            "MAINT" => 1,
            "DRAIN" => 8,
            _ => 0,
        };
        // HAProxy's numbers: 1 for a check without a result, of results 0 unknown, 2 failed, 3 passed.
        let (state, result) = match &one.health.probe {
            None => (1, 0),
            Some(probe) if probe.why.is_none() => (6, 3),
            Some(_) => (7, 2),
        };
        // Of its bits: 2 for a check that is configured, 4 for one that is enabled.
        let checked = match (&back.front.service.probe, one.health.unchecked) {
            (None, _) => 0,
            (Some(_), true) => 2,
            (Some(_), false) => 6,
        };
        let of_service = || Some(back.front.service.probe.as_ref()?.port?.get());
        let asked = one.health.check_port.or_else(of_service).unwrap_or(0);
        format!(
            "{} {} {} {} {} {op} {bits} {} {} {} {state} {result} {} {checked} 0 0 0 - {} - 0 {asked} - - 0\n",
            proxy.iid,
            proxy.name,
            back.server.sid,
            back.server.name,
            one.addr.ip(),
            one.weight,
            one.declared.weight,
            back.last_change().unwrap_or(0),
            status::check_health(one).unwrap_or(0),
            one.addr.port(),
        )
    })
    .await
}

pub(super) async fn servers_conn(session: &mut Session, words: &[&str]) -> Answer {
    const HEAD: &str = "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb \
                        idle_lim idle_cur idle_per_thr[1]\n";
    each_server(session, words, HEAD, |back| {
        let proxy = back.front.proxy;
        format!(
            "{}/{} {}/{} {} {} - 0 {} {} 0 0 0 -1 0 0\n",
            proxy.name,
            back.server.name,
            proxy.iid,
            back.server.sid,
            back.backend.addr.ip(),
            back.backend.addr.port(),
            back.backend.traffic.flows_active,
            back.server.load.active_max,
        )
    })
    .await
}

async fn each_server(
    session: &mut Session,
    words: &[&str],
    head: &str,
    line: impl Fn(Back<'_>) -> String,
) -> Answer {
    let sample = session.admin.stats.latest().await;
    let of = words.first().copied();
    if of.is_some_and(|name| sample.proxy(name).is_none()) {
        return Ok(Err("Can't find backend.".into()));
    }
    let mut text = head.to_owned();
    let wanted = |front: &Front<'_>| of.is_none_or(|name| *front.proxy.name == *name);
    for front in Front::all(&sample).filter(wanted) {
        for back in front.servers() {
            text.push_str(&line(back));
        }
        session.send_piece(&mut text).await?;
    }
    session.send(&text).await?;
    Ok(Ok(()))
}

pub(super) async fn sess(session: &mut Session) -> Answer {
    let look = session.admin.look();
    let asked = tokio::task::spawn_blocking(move || look.flows(&Filter::default(), FLOWS));
    let found = match asked.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Ok(Err(format!("{error:#}").into())),
        Err(error) => return Ok(Err(error.to_string().into())),
    };
    let sample = session.admin.stats.latest().await;
    let mut proxies = HashMap::new();
    for front in Front::all(&sample) {
        for at in &front.service.stands_at {
            proxies.insert((SocketAddr::new(at.addr, at.port), at.proto), front.proxy);
        }
    }
    let mut text = String::new();
    for (number, flow) in found.flows.iter().enumerate() {
        let proxy = proxies.get(&(flow.vip, flow.protocol.number()));
        let name = proxy.map_or("<NONE>", |proxy| &*proxy.name);
        let server = proxy.and_then(|proxy| {
            let mut servers = proxy.servers.iter();
            servers.find(|server| Some(sample.backend(proxy, server).addr) == flow.backend)
        });
        let server = server.map_or("<none>", |server| &*server.name);
        let family = if flow.vip.is_ipv4() { 4 } else { 6 };
        text.push_str(&format!(
            "0x{:x}: proto={}v{family} src={} fe={name} be={name} srv={server} age={}s idle={}s\n",
            number + 1,
            flow.protocol,
            flow.client,
            flow.age_s,
            flow.idle_s,
        ));
        session.send_piece(&mut text).await?;
    }
    session.send(&text).await?;
    Ok(Ok(()))
}
