//! A stand-in for Marathon 1.11: its API and event stream, and real tasks in the lab's hosts.
//!
//! What it leaves out: groups, pods (there are none), health checks, gzip, and what a task's `cmd` says:
//! every task is the lab's task server.

mod api;
mod app;
mod clock;
mod cluster;
mod deploy;
mod events;
mod guard;
mod launch;
mod standby;
mod view;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::net::TcpListener;

pub use self::launch::{Agent, Slot};
use self::{cluster::Cluster, events::Bus};

/// How a stand-in is to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Nodes that can run tasks.
    pub agents: Vec<Agent>,
    /// Containers, ready and waiting, for apps of network mode `container`.
    pub slots: Vec<Slot>,
    /// `user:password` to ask for, if any.
    pub credentials: Option<String>,
    /// Be a standby of this leader (`http://host:port`).
    pub standby_of: Option<String>,
    /// The framework name in `/v2/info`.
    pub framework: String,
    /// The pause between two heart-beats of the event stream.
    pub heartbeat: Duration,
    /// How long a task stays in each state on its way to TASK_RUNNING, at least.
    pub step: Duration,
    /// From TASK_KILLING to SIGTERM.
    pub kill_delay: Duration,
    /// From SIGTERM to SIGKILL.
    pub kill_grace: Duration,
    /// Where the output of tasks goes.
    pub logs: PathBuf,
}

/// What every request sees.
#[derive(Clone, Debug)]
struct Marathon {
    config: Arc<Config>,
    cluster: Arc<Cluster>,
    bus: Bus,
}

/// Serves until the process ends; the tasks end with it.
///
/// # Errors
///
/// The address cannot be bound.
pub async fn serve(config: Config) -> Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let bus = Bus::default();
    let routes = match &config.standby_of {
        Some(leader) => standby::routes(leader.clone()),
        None => {
            let cluster = Arc::new(Cluster::default());
            api::routes(Marathon {
                config: Arc::new(config),
                cluster,
                bus,
            })
        }
    };
    println!("ready");
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, service).await?)
}
