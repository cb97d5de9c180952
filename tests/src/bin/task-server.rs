//! A task of the lab: says over HTTP and UDP where it runs.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use clap::Parser;
use lb_tests::task::{Spot, serve};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Answers `Running on node 'NODE' and port 'PORT'` over HTTP and UDP.
#[derive(Parser)]
struct Flags {
    /// What it calls its node
    #[arg(long)]
    node: String,
    /// Address to listen on; :: takes both families
    #[arg(long, default_value = "::")]
    bind: IpAddr,
    /// Port to listen on, TCP and UDP; may be given several times
    #[arg(long = "port", required = true)]
    ports: Vec<u16>,
    /// Seconds that open connections have after SIGTERM
    #[arg(long, default_value_t = 5)]
    grace: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Flags {
        node,
        bind,
        ports,
        grace,
    } = Flags::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, asked) = watch::channel(false);
    tokio::spawn(async move {
        terminate.recv().await;
        let _ = stop.send(true);
    });
    let spots = ports
        .into_iter()
        .map(|port| Spot {
            node: node.as_str().into(),
            bind,
            port,
        })
        .collect();
    serve(spots, asked, Duration::from_secs(grace)).await
}
