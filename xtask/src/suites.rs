//! The test suites.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{
    build::{floors, programs, words},
    setup::{self, Need},
    shell::{as_root, cargo, root},
};

/// A set of tests that are run together. Those after `unit` need root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Unit and doc tests of every crate.
    Unit,
    /// The kernel programs through BPF_PROG_TEST_RUN: `tests/tests/packet_*.rs`.
    Packet,
    /// Real sockets between network namespaces: `tests/tests/lab_*.rs`.
    Lab,
    /// A stand-in for Marathon, and what only apps of Marathon can ask for: `tests/tests/marathon_*.rs`.
    Marathon,
    /// A real Docker Engine in such a namespace: `tests/tests/docker_*.rs`.
    Docker,
    /// moto with a scheduler in its place, and deployfish: `tests/tests/ecs_*.rs`.
    Ecs,
    /// A real etcd in such a namespace: `tests/tests/etcd_*.rs`.
    Etcd,
    /// All orchestrators at once, killed in turn and together: `tests/tests/together_*.rs`.
    Together,
    /// Health checks and the operator's word about backends: `tests/tests/health_*.rs`.
    Health,
    /// Statistics, orders over HTTP and the stats socket, and tools made for HAProxy: `tests/tests/admin_*.rs`.
    Admin,
    /// The stats page in Debian's chromium: `tests/tests/browser_*.rs`.
    Browser,
    /// The oldest kernel that the agent is for, in an emulated machine: `tests/tests/kernel_*.rs`.
    Kernel,
}

const ALL: [Suite; 12] = [
    Suite::Unit,
    Suite::Packet,
    Suite::Lab,
    Suite::Marathon,
    Suite::Docker,
    Suite::Ecs,
    Suite::Etcd,
    Suite::Together,
    Suite::Health,
    Suite::Admin,
    Suite::Browser,
    Suite::Kernel,
];

/// Tests of other suites that `kernel` runs on its kernel, the longest first. That takes five to ten seconds to verify
/// the programs for each of them, and all is to be done in some two minutes, so these are the ones that ask most of it:
/// next hops and redirects for full NAT, room for outer headers, answers made of packets, sums, the ring by which
/// packets are traced; and with an agent, every hook of XDP, tc and cgroups, and the end of sockets whose backend goes.
const ON_OLDEST: [&str; 7] = [
    "packet_geneve",
    "packet_nat",
    "lab_one_node",
    "packet_icmp",
    "packet_dnat",
    "packet_trace",
    "lab_orphans",
];

/// Labs at a time; more only make each other slow.
const THREADS: &str = "--test-threads=2";

/// Runs one suite, or all but those that are to be left out; the exit code says whether every test passed.
///
/// # Errors
///
/// What kept a suite from running.
pub(crate) fn run(
    suite: Option<Suite>,
    without: &[Suite],
    arguments: &[String],
) -> Result<ExitCode> {
    let (suites, left_out) = chosen(suite, without);
    ensure!(!suites.is_empty(), "every suite is left out");
    for suite in &suites {
        setup::bring(match suite {
            Suite::Unit => Need::Build,
            Suite::Packet | Suite::Marathon | Suite::Health => Need::Lab,
            // The ways of the benchmark are tested, too.
            Suite::Lab => Need::Bench,
            Suite::Docker => Need::Docker,
            Suite::Etcd => Need::Etcd,
            Suite::Ecs => Need::Ecs,
            Suite::Together => Need::Orchestrators,
            Suite::Admin => Need::Haproxy,
            Suite::Browser => Need::Browser,
            Suite::Kernel => Need::Kernel,
        })
        .with_context(|| match suites.len() {
            1 => format!("the suite {} cannot run", suite.name()),
            _ => format!(
                "the suite {0} cannot run; --without {0} leaves it out",
                suite.name()
            ),
        })?;
    }
    let mut failed = Vec::new();
    for suite in suites {
        failed.extend(match suite {
            Suite::Unit => unit(arguments)?,
            other => as_programs(&other.name(), arguments)?,
        });
    }
    // Last, so that nobody takes what was not run for what passed.
    if !left_out.is_empty() {
        let names: Vec<_> = left_out.into_iter().map(Suite::name).collect();
        eprintln!("left out: {}", names.join(", "));
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The suites to run and those that are left out, each in order.
fn chosen(suite: Option<Suite>, without: &[Suite]) -> (Vec<Suite>, Vec<Suite>) {
    match suite {
        Some(suite) => (vec![suite], Vec::new()),
        None => ALL.into_iter().partition(|suite| !without.contains(suite)),
    }
}

// === impl Suite ===

impl Suite {
    /// As on the command line, and as its test files begin.
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Returns what failed.
fn unit(arguments: &[String]) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    for (what, kinds) in [
        ("unit tests", ["--lib", "--bins"].as_slice()),
        ("doc tests", &["--doc"]),
    ] {
        announce(&format!("unit: {what}"));
        let mut test = cargo();
        test.arg("test")
            .args(kinds)
            .arg("--no-fail-fast")
            .arg("--")
            .args(arguments);
        if !test.status().context("cannot run cargo")?.success() {
            failed.push(what.to_owned());
        }
    }
    Ok(failed)
}

/// Builds as the caller, and runs each test program as root. Returns what failed.
fn as_programs(name: &str, arguments: &[String]) -> Result<Vec<String>> {
    let tests = test_files(name)?;
    ensure!(
        !tests.is_empty(),
        "the suite {name} has no tests: tests/tests/{name}_*.rs"
    );
    let floors = floors()?;
    let words = (name == "packet").then(words).transpose()?;
    let (venv, haproxy, axe) = (setup::ecs()?, setup::haproxy()?, setup::axe()?);
    let promtool = setup::promtool()?;
    let kernel = setup::oldest_kernel()?;
    let inside: &[&str] = if name == "kernel" { &ON_OLDEST } else { &[] };
    let mut build = cargo();
    // Together: without the tests' own dependencies many crates would get other features, and be compiled once more.
    build.args(["build", "--bins"]);
    for test in tests
        .iter()
        .map(String::as_str)
        .chain(inside.iter().copied())
    {
        build.args(["--test", test]);
    }
    let mut built = programs(&mut build)?;
    let agent = built.remove("lb-agent");
    let agent = agent.context("lb-agent was not built")?;
    let inside = joined(&built, inside)?;
    let mut failed = Vec::new();
    for test in tests {
        announce(&format!("{name}: tests/tests/{test}.rs"));
        let program = built
            .get(&test)
            .with_context(|| format!("{test} was not built"))?;
        let mut kept = vec![
            ("LB_AGENT_BIN", agent.as_path()),
            ("LB_BENCH_OBJECT", floors.as_path()),
            ("LB_ECS_VENV", venv.as_path()),
            ("LB_HAPROXY_VENV", haproxy.as_path()),
            ("LB_AXE", axe.as_path()),
            ("LB_PROMTOOL", promtool.as_path()),
            ("LB_KERNEL", kernel.as_path()),
            ("LB_KERNEL_TESTS", inside.as_path()),
        ];
        kept.extend(words.as_deref().map(|words| ("LB_WORDS_OBJECT", words)));
        let status = as_root(program, &kept)?
            .arg(THREADS)
            .args(arguments)
            .status()?;
        if !status.success() {
            failed.push(test);
        }
    }
    Ok(failed)
}

/// Where these programs are, as one value of a variable.
fn joined(built: &BTreeMap<String, PathBuf>, names: &[&str]) -> Result<PathBuf> {
    let at = |name: &&str| {
        let program = built.get(*name).map(PathBuf::as_path);
        program.with_context(|| format!("{name} was not built"))
    };
    let programs: Vec<&Path> = names.iter().map(at).collect::<Result<_>>()?;
    Ok(env::join_paths(programs)?.into())
}

/// The names of `tests/tests/PREFIX_*.rs`, in order.
fn test_files(prefix: &str) -> Result<Vec<String>> {
    let dir = root().join("tests/tests");
    let mut names: Vec<String> = fs::read_dir(&dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .into_string()
                .ok()?
                .strip_suffix(".rs")
                .map(str::to_owned)
        })
        .filter(|name| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with('_'))
        })
        .collect();
    names.sort();
    Ok(names)
}

fn announce(what: &str) {
    eprintln!("\n== {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_known_and_nothing_else_is() {
        assert_eq!(chosen(None, &[]), (ALL.to_vec(), vec![]));
        let (run, left_out) = chosen(None, &[Suite::Ecs, Suite::Docker]);
        assert_eq!(left_out, [Suite::Docker, Suite::Ecs]);
        assert_eq!(run.len(), ALL.len() - 2);
        assert!(!run.contains(&Suite::Ecs) && !run.contains(&Suite::Docker));
        assert_eq!(chosen(Some(Suite::Etcd), &[]), (vec![Suite::Etcd], vec![]));
        assert_eq!(Suite::Together.name(), "together");
    }
}
