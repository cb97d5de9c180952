//! Asks over and over who answers, and prints what came of it as JSON.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use clap::Parser;
use lb_tests::probe::{Mode, Plan};
use tokio::signal::unix::{SignalKind, signal};

/// Counts who answers at an address; SIGTERM ends it early, with the counts so far.
#[derive(Parser)]
struct Flags {
    /// NAME:PORT or ADDRESS:PORT
    to: String,
    /// Take the name's IPv6 address
    #[arg(long)]
    ipv6: bool,
    /// How to ask
    #[arg(long, value_enum, default_value = "tcp")]
    mode: Mode,
    /// How often; 0 goes on until SIGTERM
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Milliseconds between two questions
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Milliseconds that one question may take
    #[arg(long, default_value_t = 3000)]
    within: u64,
    /// First source port of UDP questions, counted up from there; 0 leaves it to the kernel
    #[arg(long, default_value_t = 0)]
    first_port: u16,
}

fn main() -> Result<()> {
    let Flags {
        to,
        ipv6,
        mode,
        count,
        pause,
        within,
        first_port,
    } = Flags::parse();
    let plan = Plan {
        to,
        ipv6,
        mode,
        count: (count > 0).then_some(count),
        pause: Duration::from_millis(pause),
        within: Duration::from_millis(within),
        first_port,
    };
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_sigterm(Arc::clone(&stop))?;
    println!("{}", serde_json::to_string(&plan.carry_out(&stop))?);
    Ok(())
}

fn stop_on_sigterm(stop: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut terminate = {
        let _inside = runtime.enter();
        signal(SignalKind::terminate())?
    };
    thread::spawn(move || {
        runtime.block_on(terminate.recv());
        stop.store(true, Ordering::Relaxed);
    });
    Ok(())
}
