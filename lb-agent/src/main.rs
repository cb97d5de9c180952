//! Flags and start-up order, nothing else.

use std::process::ExitCode;

use lb_agent::{cli, config::Config, control, dns, log, privileges};

fn main() -> ExitCode {
    let cli = match cli::Cli::read() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // One TLS provider; the default one would bring a second crypto library.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("lb-agent: a TLS provider is already installed");
        return ExitCode::FAILURE;
    }
    if let Some(command) = &cli.command {
        return cli::run(command, &cli.flags, control::purge);
    }
    let inherited = match take_and_give_up() {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("lb-agent: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let config = match Config::load(&cli.flags) {
        Ok(config) => config,
        Err(error) => return cli::refuse(&error),
    };
    if let Err(error) = log::init(&config.log) {
        eprintln!("lb-agent: cannot start the log: {error}");
        return ExitCode::FAILURE;
    }
    control::run(config, inherited)
}

/// Sockets first, as they are known by number only and so must come before anything is opened; privileges before
/// any file is read, so that one which could not be read again later is refused now.
fn take_and_give_up() -> anyhow::Result<dns::Inherited> {
    let inherited = dns::Inherited::take()?;
    privileges::give_up()?;
    Ok(inherited)
}
