//! Where tasks can run, and starting them there.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, Error, Result, bail};

use super::cluster::Task;
use crate::{
    lab::{Place, Process, programs::program, wait_until},
    task::READY,
};

/// How long a task may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A node that runs tasks of network mode `host`; written `NAME=NETNS,ADDRESS,CGROUP[,ADDRESS6]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// What its tasks call it.
    pub name: String,
    /// The name of its network namespace.
    pub netns: String,
    /// Its host name as tasks show it: an address.
    pub address: IpAddr,
    /// Where its tasks go.
    pub cgroup: PathBuf,
    /// Its other address, which tasks list but VIPs do not use.
    pub other: Option<IpAddr>,
}

/// A container that waits for a task; written `AGENT=NETNS,CGROUP,ADDRESS[,ADDRESS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The name of the node it is on.
    pub agent: String,
    /// The name of its network namespace.
    pub netns: String,
    /// Where its task goes.
    pub cgroup: PathBuf,
    /// Its addresses, which other nodes reach.
    pub addresses: Vec<IpAddr>,
}

// === impl Agent ===

impl FromStr for Agent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, fields) = fields(text)?;
        let [netns, address, cgroup, other @ ..] = fields.as_slice() else {
            bail!("expected NAME=NETNS,ADDRESS,CGROUP[,ADDRESS6]");
        };
        Ok(Self {
            name,
            netns: (*netns).to_owned(),
            address: address
                .parse()
                .with_context(|| format!("{address} is not an address"))?,
            cgroup: cgroup.into(),
            other: other.first().map(|other| other.parse()).transpose()?,
        })
    }
}

// === impl Slot ===

impl FromStr for Slot {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (agent, fields) = fields(text)?;
        let [netns, cgroup, addresses @ ..] = fields.as_slice() else {
            bail!("expected AGENT=NETNS,CGROUP,ADDRESS[,ADDRESS]");
        };
        let addresses: Vec<IpAddr> = addresses
            .iter()
            .map(|at| at.parse())
            .collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            bail!("expected AGENT=NETNS,CGROUP,ADDRESS[,ADDRESS]");
        }
        Ok(Self {
            agent,
            netns: (*netns).to_owned(),
            cgroup: cgroup.into(),
            addresses,
        })
    }
}

fn fields(text: &str) -> Result<(String, Vec<&str>)> {
    let (name, rest) = text.split_once('=').context("no `=` after the name")?;
    Ok((name.to_owned(), rest.split(',').collect()))
}

/// Starts a task where it was placed and returns once it answers. Blocks.
///
/// # Errors
///
/// It cannot be started, or it is silent; the error holds what it wrote.
pub(super) fn launch(task: &Task, logs: &Path, grace: Duration) -> Result<Process> {
    let program = program("task-server")?;
    let grace = grace.as_secs().max(1).to_string();
    let ports: Vec<String> = task.listens.iter().map(u16::to_string).collect();
    let mut argv = vec![program.as_str(), "--node", &task.node, "--grace", &grace];
    for port in &ports {
        argv.extend(["--port", port]);
    }
    let netns = Path::new("/run/netns").join(&task.netns);
    let place = Place {
        netns: &netns,
        cgroup: &task.cgroup,
        binds: &[],
        logs,
    };
    let mut process = Process::start(&task.id, &argv, &place)?;
    wait_until("the task is ready", READY_WITHIN, || {
        process.stdout().contains(READY) || process.has_ended()
    })?;
    if process.has_ended() {
        bail!("the task ended at once: {}", process.stderr().trim());
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_and_slots_are_read_from_the_command_line() {
        let agent: Agent = "w1=lab-w1,10.0.0.1,/cg/w1,fd00::1".parse().unwrap();
        assert_eq!(
            (agent.name.as_str(), agent.netns.as_str()),
            ("w1", "lab-w1")
        );
        assert_eq!(agent.other, Some("fd00::1".parse().unwrap()));
        let slot: Slot = "w1=lab-box,/cg/w1/box,172.31.1.2,fd78::2".parse().unwrap();
        assert_eq!((slot.agent.as_str(), slot.addresses.len()), ("w1", 2));
        for bad in [
            "",
            "w1",
            "w1=",
            "w1=ns",
            "w1=ns,nowhere,/cg",
            "w1=ns,10.0.0.1",
        ] {
            assert!(bad.parse::<Agent>().is_err(), "{bad}");
        }
        assert!("w1=ns,/cg".parse::<Slot>().is_err());
    }
}
