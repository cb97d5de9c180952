//! The load of the lab benchmark, as processes: cgroup hooks see nothing else.

use std::{net::SocketAddr, ops::RangeInclusive, thread, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lb_tests::bench::load::{
    READY,
    client::{Kind, Load},
    server,
};

/// A load generator and its server.
#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Answer until killed
    Serve {
        /// ADDRESS:PORT or ADDRESS:FIRST-LAST
        at: String,
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Ask, and print what came of it as JSON
    Ask {
        /// ADDRESS:PORT or ADDRESS:FIRST-LAST; connections take turns
        to: String,
        #[arg(long, value_enum)]
        kind: Kind,
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Connections at a time
        #[arg(long)]
        places: usize,
        /// Milliseconds before anything counts
        #[arg(long)]
        warm_up: u64,
        /// Milliseconds that count
        #[arg(long)]
        measure: u64,
    },
}

fn main() -> Result<()> {
    match Flags::parse().role {
        Role::Serve { at, threads } => {
            server::start(&addresses(&at)?, threads)?;
            println!("{READY}");
            loop {
                thread::park();
            }
        }
        Role::Ask {
            to,
            kind,
            threads,
            places,
            warm_up,
            measure,
        } => {
            let load = Load {
                to: addresses(&to)?,
                kind,
                threads: threads.min(places),
                places,
                warm_up: Duration::from_millis(warm_up),
                measure: Duration::from_millis(measure),
            };
            println!("{}", serde_json::to_string(&load.carry_out()?)?);
            Ok(())
        }
    }
}

fn addresses(text: &str) -> Result<Vec<SocketAddr>> {
    let (addr, ports) = text.rsplit_once(':').context("ADDRESS:PORT is needed")?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let ports: RangeInclusive<u16> = first.parse()?..=last.parse()?;
    ports
        .map(|port| {
            let at = format!("{addr}:{port}");
            at.parse().with_context(|| format!("{at} is no address"))
        })
        .collect()
}
