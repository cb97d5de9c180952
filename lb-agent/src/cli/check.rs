//! `lb-agent check`: what services files would give, without an agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use clap::Args;
use ipnet::IpNet;
use serde::Serialize;

use super::{CliError, FormArgs, show};
use crate::{
    catalog::{Catalog, Notice, NoticeKind, Policy, Properties, Weight},
    provider::{
        Backend, Pool, ProviderId, Snapshot, Update, VipHost,
        file::{self, Checked, JSON_SCHEMA},
    },
    vip::{Allocator, Leases, Pools, VipName},
};

/// What is checked.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The file, or a directory with files that end in .yaml
    #[arg(value_name = "FILE|DIR", required_unless_present = "schema")]
    pub path: Option<PathBuf>,
    /// Print the JSON schema of such a file instead
    #[arg(long, conflicts_with = "path")]
    pub schema: bool,
    /// How to answer.
    #[command(flatten)]
    pub form: FormArgs,
}

/// What a check finds.
#[derive(Debug, Serialize)]
struct Findings {
    /// A line for each VIP and port.
    served: Vec<String>,
    /// What may be meant so or not.
    notes: Vec<String>,
    /// What is wrong, and not served.
    mistakes: Vec<String>,
    /// How many files were read.
    #[serde(skip)]
    files: usize,
}

/// Prints what would be served.
///
/// # Errors
/// Everything that is wrong, or that nothing can be read.
pub(super) fn check(args: &CheckArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let Some(path) = &args.path else {
        return Ok(out.write_all(JSON_SCHEMA.as_bytes())?);
    };
    let Checked {
        files,
        wrong,
        snapshot,
    } = file::check(path).map_err(CliError::Unreadable)?;
    let mut found = Findings {
        served: served(&snapshot),
        notes: Vec::new(),
        mistakes: wrong,
        files: files.len(),
    };
    for notice in notices(path, snapshot) {
        match notice.kind {
            NoticeKind::Refused | NoticeKind::NoAddress => found.mistakes.push(notice.reason),
            NoticeKind::Merged => found.notes.push(notice.reason),
            NoticeKind::LeftOut | NoticeKind::Joined => {}
        }
    }
    show(&found, args.form.json, Findings::in_words, out)?;
    if found.mistakes.is_empty() {
        return Ok(());
    }
    out.flush()?;
    Err(CliError::Wrong(found.mistakes))
}

// === impl Findings ===

impl Findings {
    /// All but the mistakes, which are told as an error.
    fn in_words(&self) -> String {
        let Self {
            served,
            notes,
            mistakes,
            files,
        } = self;
        let head = if served.is_empty() {
            "nothing would be served"
        } else {
            "would be served:"
        };
        let served = served.iter().map(|line| format!("  {line}"));
        let notes = notes.iter().map(|note| format!("note: {note}"));
        let end = format!("{files} {}, no mistake", plural(*files, "file"));
        let lines = std::iter::once(head.to_owned()).chain(served).chain(notes);
        let end = mistakes.is_empty().then_some(end);
        lines.chain(end).map(|line| line + "\n").collect()
    }
}

/// What the catalog would say on agents of any group, with every address allowed as IP VIP: that is the operator's to
/// decide.
fn notices(path: &Path, snapshot: Snapshot) -> Vec<Notice> {
    let groups: BTreeSet<Arc<str>> = groups(&snapshot.pools).cloned().collect();
    let policy = |groups| Policy {
        groups,
        ip_vips: ["0.0.0.0/0", "::/0"]
            .iter()
            .filter_map(|net| net.parse::<IpNet>().ok())
            .collect(),
        ..Policy::default()
    };
    let mut catalog = Catalog::default();
    catalog.apply(Update {
        provider: ProviderId::new("file", path.display()),
        at: SystemTime::now(),
        outcome: Ok(Arc::new(snapshot)),
    });
    let mut notices = BTreeSet::new();
    let of_one = groups.into_iter().map(|group| BTreeSet::from([group]));
    for groups in std::iter::once(BTreeSet::new()).chain(of_one) {
        let mut allocator = Allocator::new(Pools::default(), Leases::default());
        notices.extend(catalog.resolve(&policy(groups), &mut allocator).problems);
    }
    notices.into_iter().collect()
}

/// The groups of agents that services are for.
fn groups<'a>(pools: impl IntoIterator<Item = &'a Pool>) -> impl Iterator<Item = &'a Arc<str>> {
    let properties = pools
        .into_iter()
        .filter_map(|pool| pool.properties.as_deref());
    properties.flat_map(|properties| &properties.groups)
}

/// One line for each VIP and port, and for each choice of groups that serve it.
fn served(snapshot: &Snapshot) -> Vec<String> {
    let mut by_vip = BTreeMap::<(String, String), Vec<&Pool>>::new();
    for pool in &snapshot.pools {
        if let Some(vip) = vip(pool) {
            let groups: Vec<&str> = groups([pool]).map(|group| &**group).collect();
            let place = (vip, groups.join(" or "));
            by_vip.entry(place).or_default().push(pool);
        }
    }
    let line = |((vip, groups), pools): ((String, String), Vec<&Pool>)| {
        let backends: BTreeMap<_, &Backend> = pools
            .iter()
            .flat_map(|pool| &pool.backends)
            .map(|backend| (backend.addr, backend))
            .collect();
        let mut parts = vec![format!(
            "{} {}",
            backends.len(),
            plural(backends.len(), "backend")
        )];
        let idle = backends
            .values()
            .filter(|backend| backend.weight == Weight::DRAIN)
            .count();
        if idle > 0 {
            parts.push(format!("{idle} with weight 0"));
        }
        if !groups.is_empty() {
            parts.push(format!("where --group is {groups}"));
        }
        let mut shapes = pools.iter().filter_map(|pool| pool.properties.as_deref());
        if let Some(properties) = shapes.next() {
            parts.extend(told(properties));
        }
        format!("{vip}  {}", parts.join(", "))
    };
    by_vip.into_iter().map(line).collect()
}

/// `None`: it cannot be a name in DNS, which is told among the problems.
fn vip(pool: &Pool) -> Option<String> {
    let (port, protocol) = (pool.port, pool.protocol);
    match &pool.host {
        VipHost::Named { name, framework } => {
            let name = VipName::mangle(name, framework).ok()?;
            Some(format!("{}:{port}/{protocol}", name.fqdn()))
        }
        VipHost::Addr(addr) => {
            let at = std::net::SocketAddr::new(*addr, port.get());
            Some(format!("{at}/{protocol} (if --ip-vips allows it)"))
        }
    }
}

/// What a service says of itself, in a few words.
fn told(properties: &Properties) -> Vec<String> {
    let usual = Properties::default();
    let said: BTreeSet<_> = properties.differences(&usual).into_iter().collect();
    let mut parts = Vec::new();
    for key in &said {
        parts.push(match *key {
            "mode" => format!("mode {}", properties.mode),
            "balance" => format!("balance {}", properties.balance),
            "external" => {
                let ports: Vec<_> = properties
                    .external
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                format!(
                    "also at port {} of each node (if --node-ports allows it)",
                    ports.join(", ")
                )
            }
            other => format!("own {other}"),
        });
    }
    parts
}

fn plural(count: usize, word: &str) -> String {
    format!("{word}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run(text: &str) -> (String, Result<(), CliError>) {
        run_as(text, FormArgs::default())
    }

    fn run_as(text: &str, form: FormArgs) -> (String, Result<(), CliError>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        let args = CheckArgs {
            path: Some(file.path().to_owned()),
            schema: false,
            form,
        };
        let mut out = Vec::new();
        let outcome = check(&args, &mut out);
        (String::from_utf8(out).unwrap(), outcome)
    }

    #[test]
    fn a_good_file_says_what_it_serves() {
        let (out, outcome) = run(
            "services:\n- {name: /shop/api, port: 80, balance: source, external: 10000, rate: 5, \
             backends: ['10.0.0.1:80', {address: '10.0.0.2:80', weight: 0}]}\n\
             - {address: 10.1.2.3, port: 53, protocol: udp}\n",
        );
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(
            out,
            "would be served:\n  10.1.2.3:53/udp (if --ip-vips allows it)  0 backends\n  \
             shopapi.file.l4lb.thisdcos.directory:80/tcp  2 backends, 1 with weight 0, balance source, \
             also at port 10000 of each node (if --node-ports allows it), own rate\n1 file, no mistake\n"
        );
    }

    #[test]
    fn a_service_for_groups_of_agents_has_a_line_for_each_choice() {
        let (out, outcome) = run(
            "services:\n- {name: /a, port: 80, backends: ['10.0.0.1:80']}\n\
             - {name: /a, port: 80, group: [east, edge], rate: 5}\n- {name: /a, port: 80, group: west, rate: 6}\n",
        );
        assert!(outcome.is_ok(), "{outcome:?}");
        let vip = "  a.file.l4lb.thisdcos.directory:80/tcp ";
        assert_eq!(
            out,
            format!(
                "would be served:\n{vip} 1 backend\n{vip} 0 backends, where --group is east or edge, own rate\n\
                 {vip} 0 backends, where --group is west, own rate\n1 file, no mistake\n"
            )
        );
        let (_, outcome) = run("services:\n- {name: ///, port: 80, group: east}\n");
        assert!(outcome.unwrap_err().to_string().contains("VIP name"));
    }

    #[test]
    fn a_bad_file_fails_with_all_that_is_wrong() {
        let (out, outcome) = run(
            "services:\n- {name: /a, port: 0}\n- {name: ///, port: 1}\n- {name: /b, port: x}\n- {name: /c, port: 3}\n",
        );
        assert!(
            out.contains("c.file.l4lb.thisdcos.directory:3/tcp  0 backends"),
            "{out}"
        );
        let Err(error) = outcome else { panic!("{out}") };
        let text = error.to_string();
        assert!(text.starts_with("3 mistakes:\n"), "{text}");
        for part in ["2:20: key port", "4:20: key port", "VIP name \"///\""] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn as_json_it_says_all_at_once_and_fails_all_the_same() {
        let form = FormArgs { json: true };
        let (out, outcome) = run_as(
            "services:\n- {name: /a, port: 1}\n- {name: ///, port: 1}\n",
            form,
        );
        let found: serde_json::Value = serde_json::from_str(&out).unwrap();
        let served = "a.file.l4lb.thisdcos.directory:1/tcp  0 backends";
        assert_eq!(found["served"], serde_json::json!([served]));
        assert_eq!(found["notes"], serde_json::json!([]));
        let mistakes = found["mistakes"].as_array().unwrap();
        assert_eq!(mistakes.len(), 1, "{out}");
        assert!(
            matches!(&outcome, Err(CliError::Wrong(wrong)) if mistakes[0] == *wrong[0]),
            "{outcome:?}"
        );
        let (out, outcome) = run_as("services: []\n", form);
        assert!(outcome.is_ok(), "{outcome:?}");
        let found: serde_json::Value = serde_json::from_str(&out).unwrap();
        let nothing = serde_json::json!({"served": [], "notes": [], "mistakes": []});
        assert_eq!(found, nothing);
    }

    #[test]
    fn the_schema_is_json() {
        let args = CheckArgs {
            path: None,
            schema: true,
            form: FormArgs::default(),
        };
        let mut out = Vec::new();
        check(&args, &mut out).unwrap();
        let schema: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(schema["title"], "Services of lb-agent");
    }
}
