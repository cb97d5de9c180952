//! Every developer command: `cargo xtask --help`.

mod bench;
mod build;
mod install;
mod lints;
mod setup;
mod shell;
mod suites;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use setup::Need;

/// Sets the tool chain up by itself; every command can be the first one.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring what builds and tests need: rust-src, bpf-linker, system tools
    Setup {
        /// What the lab benchmark compares with, too: HAProxy
        #[arg(long)]
        bench: bool,
        /// What the tests run besides: Docker Engine, etcd, moto and deployfish, a browser, and the oldest kernel
        #[arg(long)]
        test: bool,
    },
    /// Build the agent with its kernel programs
    Build {
        /// Optimised, as it is installed
        #[arg(long)]
        release: bool,
    },
    /// Play the tutorial in a lab of network namespaces and show who answered (needs root or sudo)
    Demo,
    /// Run all suites, or one (all but `unit` need root or sudo)
    Test {
        /// The suite; all of them if absent
        suite: Option<suites::Suite>,
        /// Leave a suite out, say because what it needs is not to be had here; the last line names it (repeatable)
        #[arg(long, value_name = "SUITE", conflicts_with = "suite")]
        without: Vec<suites::Suite>,
        /// What the test programs get: a filter, --nocapture
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run all benchmarks, or one suite: packet, live, lab, control (needs root or sudo)
    Bench {
        /// The suite; all of them if absent
        suite: Option<bench::Suite>,
        /// Write the results here as well, for machines
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Build for release and install the agent and its systemd unit
    Install {
        /// Where `bin` and `lib/systemd/system` are
        #[arg(long, default_value = "/usr/local")]
        prefix: PathBuf,
    },
    /// Check what clippy cannot: every crate inherits the lints, no file is too long
    CiLints,
}

fn main() -> ExitCode {
    match run(Flags::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup { bench, test } => {
            setup::bring(if bench { Need::Bench } else { Need::Lab })?;
            if test {
                setup::bring(Need::Docker)?;
                setup::bring(Need::Etcd)?;
                setup::bring(Need::Ecs)?;
                setup::bring(Need::Haproxy)?;
                setup::bring(Need::Browser)?;
                setup::bring(Need::Kernel)?;
            }
        }
        Command::Build { release } => {
            setup::bring(Need::Build)?;
            build::agent(release)?;
        }
        Command::Demo => {
            setup::bring(Need::Lab)?;
            return build::demo();
        }
        Command::Test {
            suite,
            without,
            arguments,
        } => return suites::run(suite, &without, &arguments),
        Command::Bench { suite, json } => return bench::run(suite, json.as_deref()),
        Command::Install { prefix } => {
            setup::bring(Need::Build)?;
            install::install(&prefix)?;
        }
        Command::CiLints => lints::check()?,
    }
    Ok(ExitCode::SUCCESS)
}
