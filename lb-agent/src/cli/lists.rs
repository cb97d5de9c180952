//! `services` and `backends`: one line each, for people and for scripts.

use std::{io::Write, path::Path};

use clap::Args;
use serde::Serialize;

use super::{CliError, client, render, show, write_json};
use crate::admin::report::{BackendReport, ServiceReport, StatusReport, Timestamp};

/// Which services, and in which form.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Only this service: its name or address, with :PORT or without
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// A backend, and whose it is.
#[derive(Serialize)]
struct Listed<'a> {
    /// As in the table.
    service: String,
    #[serde(flatten)]
    backend: &'a BackendReport,
}

/// Prints `lb-agent services`.
pub(super) fn services(
    socket: &Path,
    args: &ListArgs,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let (found, _) = found(socket, args)?;
    show(&found, args.json, |found| render::services(found), out)
}

/// Prints `lb-agent backends`.
pub(super) fn backends(
    socket: &Path,
    args: &ListArgs,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let (found, now) = found(socket, args)?;
    if !args.json {
        return Ok(out.write_all(render::backends(&found, now).as_bytes())?);
    }
    let listed = found.iter().flat_map(|service| {
        service.backends.iter().map(|backend| Listed {
            service: render::title(service),
            backend,
        })
    });
    write_json(&listed.collect::<Vec<_>>(), out)
}

/// The services that are meant, and the agent's time.
fn found(socket: &Path, args: &ListArgs) -> Result<(Vec<ServiceReport>, Timestamp), CliError> {
    let StatusReport {
        agent, services, ..
    } = client::status(socket)?;
    let mut services = std::sync::Arc::unwrap_or_clone(services);
    if let Some(wanted) = &args.service {
        services.retain(|service| service.is_called(wanted));
        if services.is_empty() {
            return Err(CliError::NoService(render::plain(wanted)));
        }
    }
    Ok((services, agent.now))
}
