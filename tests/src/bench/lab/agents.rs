//! The agents of the lab, each with a services file of its own.

use std::{fs, path::Path};

use anyhow::{Result, bail, ensure};

use super::ways::UP_WITHIN;
use crate::lab::{
    Host, Process,
    programs::{agent, places},
    retry,
};

/// An agent that serves `services`, the entries of its file, up and programmed: it shows all of `backends`.
pub(super) fn start(
    host: &Host,
    cgroup: &Path,
    services: &str,
    backends: &[String],
    flags: &[&str],
) -> Result<Process> {
    let path = |name: &str| host.dir().join(name).display().to_string();
    fs::write(path("services.yaml"), format!("services:\n{services}"))?;
    let (program, run) = (agent()?, path("run"));
    let file = path("services.yaml");
    let places = places(host, cgroup);
    let mut argv = vec![
        program.as_str(),
        "--services",
        &file,
        "--ip-vips",
        "10.88.0.0/13",
        "--dns-listen",
        "none",
        "--flows",
        "131072",
        "--udp-flows",
        "1024",
    ];
    argv.extend(places.iter().map(String::as_str));
    argv.extend(flags);
    let mut process = host.start("lb-agent", &argv)?;
    let status = [program.as_str(), "status", "--json", "--run-dir", &run];
    let up = retry("the agent serves", UP_WITHIN, || {
        if process.has_ended() {
            return Ok(false);
        }
        let said = host.run(&status)?.ok()?;
        let shown = |backend: &String| said.contains(&format!("\"{backend}\""));
        ensure!(backends.iter().all(shown), "{said}");
        Ok(true)
    });
    if !matches!(up, Ok(true)) {
        bail!(
            "the agent on {} is not up ({up:?}); it wrote:\n{}{}",
            host.name(),
            process.stdout(),
            process.stderr()
        );
    }
    Ok(process)
}
