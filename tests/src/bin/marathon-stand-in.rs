//! A Marathon for the lab.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Parser;
use lb_tests::marathon::{Agent, Config, Slot, serve};

/// Marathon's API and event stream, with tasks that really run in the lab's hosts.
#[derive(Parser)]
struct Flags {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// A node: `NAME=NETNS,ADDRESS,CGROUP[,ADDRESS6]`
    #[arg(long = "agent")]
    agents: Vec<Agent>,
    /// A container that waits for a task: `AGENT=NETNS,CGROUP,ADDRESS[,ADDRESS]`
    #[arg(long = "slot")]
    slots: Vec<Slot>,
    /// Ask for these: USER:PASSWORD
    #[arg(long)]
    http_credentials: Option<String>,
    /// Be a standby of this leader: http://ADDRESS:PORT
    #[arg(long)]
    standby_of: Option<String>,
    /// The framework's name
    #[arg(long, default_value = "marathon")]
    framework_name: String,
    /// Milliseconds between heart-beats
    #[arg(long, default_value_t = 10_000)]
    heartbeat: u64,
    /// Milliseconds that a task stays in each state on its way up
    #[arg(long, default_value_t = 100)]
    step: u64,
    /// Milliseconds from TASK_KILLING to SIGTERM
    #[arg(long, default_value_t = 1000)]
    kill_delay: u64,
    /// Milliseconds from SIGTERM to SIGKILL
    #[arg(long, default_value_t = 3000)]
    kill_grace: u64,
    /// Directory for the output of tasks
    #[arg(long, default_value = ".")]
    logs: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    serve(Config {
        listen: flags.listen,
        agents: flags.agents,
        slots: flags.slots,
        credentials: flags.http_credentials,
        standby_of: flags.standby_of,
        framework: flags.framework_name,
        heartbeat: Duration::from_millis(flags.heartbeat),
        step: Duration::from_millis(flags.step),
        kill_delay: Duration::from_millis(flags.kill_delay),
        kill_grace: Duration::from_millis(flags.kill_grace),
        logs: flags.logs,
    })
    .await
}
