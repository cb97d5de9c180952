//! What the subcommands print, and how they end.

mod example;
mod follow;
mod lists;
mod look;
mod orders;

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    thread::JoinHandle,
};

use tempfile::TempDir;

use super::*;
use crate::{
    admin::{SOCKET_NAME, report::*},
    catalog::{Port, Protocol},
};
use example::example;

fn parse(args: &[&str]) -> Result<Cli, String> {
    Cli::from_args(std::iter::once("lb-agent").chain(args.iter().copied()))
}

fn mistake(args: &[&str]) -> String {
    let sentence = parse(args).unwrap_err();
    assert!(!sentence.contains('\n'), "not one sentence: {sentence}");
    sentence
}

#[test]
fn mistakes_are_one_sentence() {
    assert_eq!(
        mistake(&["--ifcae", "eth0"]),
        "unknown flag --ifcae; did you mean --iface?"
    );
    assert_eq!(
        mistake(&["--zzz"]),
        "unknown flag --zzz; see lb-agent --help"
    );
    assert_eq!(
        mistake(&["stats"]),
        "unknown command stats; did you mean status?"
    );
    assert_eq!(
        mistake(&["--iface"]),
        "--iface: needs a value; see lb-agent --help"
    );
    assert_eq!(
        mistake(&["--flows", "1", "--flows", "2"]),
        "--flows: given more than once"
    );
    assert_eq!(
        mistake(&["resolve"]),
        "<NAME> is missing; see lb-agent --help"
    );
    assert_eq!(
        mistake(&["status", "extra"]),
        "unexpected argument 'extra' found; see lb-agent --help"
    );
}

#[test]
fn the_agents_places_may_stand_before_or_after_the_subcommand() {
    for args in [["--run-dir", "/x", "status"], ["status", "--run-dir", "/x"]] {
        let cli = parse(&args).unwrap();
        assert!(matches!(cli.command, Some(Command::Status { json: false })));
        assert_eq!(
            Paths::load(&cli.flags).unwrap().run_dir.to_str(),
            Some("/x"),
            "{args:?}"
        );
    }
}

#[test]
fn without_a_subcommand_the_agent_runs() {
    assert!(parse(&["--iface", "eth0"]).unwrap().command.is_none());
}

/// Runs a subcommand against a run directory; what it printed, and how it ended.
fn execute_in(
    dir: &TempDir,
    command: Command,
    purge: impl FnOnce(&Paths) -> anyhow::Result<Purged>,
) -> (String, Result<(), CliError>) {
    let cli = parse(&["--run-dir", dir.path().to_str().unwrap()]).unwrap();
    let mut out = Vec::new();
    let outcome = execute(&command, &Paths::load(&cli.flags).unwrap(), purge, &mut out);
    (String::from_utf8(out).unwrap(), outcome)
}

fn no_purge(_: &Paths) -> anyhow::Result<Purged> {
    panic!("nobody asked for a purge")
}

/// An agent that answers one request with these bytes; joining it gives the request's first line.
fn answer_once(dir: &TempDir, answer: impl Into<Vec<u8>>) -> JoinHandle<String> {
    let listener = UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap();
    let answer = answer.into();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(&answer).unwrap();
        String::from_utf8(request)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .to_owned()
    })
}

fn ok(body: &impl serde::Serialize) -> Vec<u8> {
    format!(
        "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{}",
        serde_json::to_string(body).unwrap()
    )
    .into()
}

fn status(json: bool) -> Command {
    Command::Status { json }
}

fn resolve(name: &str) -> Command {
    Command::Resolve {
        name: name.to_owned(),
        json: false,
    }
}

#[test]
fn status_prints_what_the_agent_reports() {
    let dir = TempDir::new().unwrap();
    let agent = answer_once(&dir, ok(&example()));
    let (text, outcome) = execute_in(&dir, status(false), no_purge);
    outcome.unwrap();
    assert_eq!(text, include_str!("golden/status.txt"));
    assert_eq!(agent.join().unwrap(), "GET /v1/status HTTP/1.0");
}

#[test]
fn status_as_json_can_be_read_back() {
    let dir = TempDir::new().unwrap();
    answer_once(&dir, ok(&example()));
    let (text, outcome) = execute_in(&dir, status(true), no_purge);
    outcome.unwrap();
    assert_eq!(
        serde_json::from_str::<StatusReport>(&text).unwrap(),
        example()
    );
}

#[test]
fn an_agent_with_nothing_to_do_says_none_and_not_an_empty_page() {
    let dir = TempDir::new().unwrap();
    answer_once(&dir, ok(&StatusReport::default()));
    let (text, outcome) = execute_in(&dir, status(false), no_purge);
    outcome.unwrap();
    assert_eq!(text, include_str!("golden/empty.txt"));
}

#[test]
fn without_an_agent_it_says_so_with_the_path_and_code_3() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join(SOCKET_NAME);
    let sentence = format!(
        "no agent is running: nobody listens on {}",
        socket.display()
    );
    let error = execute_in(&dir, status(false), no_purge).1.unwrap_err();
    assert_eq!(
        (error.to_string(), error.code()),
        (sentence.clone(), EXIT_NOT_RUNNING)
    );
    drop(UnixListener::bind(&socket).unwrap());
    let error = execute_in(&dir, resolve("a"), no_purge).1.unwrap_err();
    assert_eq!(
        (error.to_string(), error.code()),
        (sentence, EXIT_NOT_RUNNING),
        "a stale socket is the same"
    );
}

#[test]
fn an_answer_that_makes_no_sense_is_a_failure_with_code_1() {
    for (answer, reason) in [
        (
            "SSH-2.0\r\n",
            "gave an answer that this version does not understand: it is not HTTP",
        ),
        (
            "HTTP/1.0 500 Oops\r\n\r\nout of luck\n",
            "answered with an error: 500 out of luck",
        ),
        (
            "HTTP/1.0 200 OK\r\n\r\n{\"agent\":",
            "gave an answer that this version does not understand: EOF while",
        ),
    ] {
        let dir = TempDir::new().unwrap();
        let agent = answer_once(&dir, answer);
        let error = execute_in(&dir, status(false), no_purge).1.unwrap_err();
        agent.join().unwrap();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.code(), EXIT_FAILED);
    }
}

#[test]
fn resolve_prints_records_as_dig_does() {
    let dir = TempDir::new().unwrap();
    let answer = Resolution {
        name: "app2.marathon.l4lb.thisdcos.directory.".into(),
        code: "NOERROR".into(),
        authoritative: true,
        addrs: vec!["11.68.84.23".parse().unwrap(), "fd01:c::1".parse().unwrap()],
        ttl: 5,
    };
    let agent = answer_once(&dir, ok(&answer));
    let (text, outcome) = execute_in(&dir, resolve("app2.marathon"), no_purge);
    outcome.unwrap();
    assert_eq!(
        text,
        "app2.marathon.l4lb.thisdcos.directory. 5 IN A 11.68.84.23\n\
         app2.marathon.l4lb.thisdcos.directory. 5 IN AAAA fd01:c::1\n"
    );
    assert_eq!(
        agent.join().unwrap(),
        "GET /v1/resolve?name=app2.marathon HTTP/1.0"
    );
}

#[test]
fn a_name_without_address_is_a_failure_that_scripts_see() {
    let dir = TempDir::new().unwrap();
    let answer = Resolution {
        name: "no.".into(),
        code: "NXDOMAIN".into(),
        authoritative: true,
        addrs: vec![],
        ttl: 1,
    };
    answer_once(&dir, ok(&answer));
    let (text, outcome) = execute_in(&dir, resolve("no"), no_purge);
    let error = outcome.unwrap_err();
    assert_eq!(
        (text.as_str(), error.code()),
        ("no. 1 NXDOMAIN, no address\n", EXIT_FAILED)
    );
}

#[test]
fn a_foreign_name_is_said_to_be_forwarded() {
    let dir = TempDir::new().unwrap();
    answer_once(
        &dir,
        ok(&Resolution {
            name: "example.org.".into(),
            ..Resolution::default()
        }),
    );
    let (text, outcome) = execute_in(&dir, resolve("example.org"), no_purge);
    outcome.unwrap();
    assert_eq!(
        text,
        "example.org. is outside the zone: forwarded to the upstream resolvers\n"
    );
}

#[test]
fn purge_lists_what_it_removed() {
    let dir = TempDir::new().unwrap();
    let removed = |_: &Paths| {
        Ok(Purged {
            removed: vec![
                "pins under /sys/fs/bpf/x".to_owned(),
                "address 169.254.53.53 on lo".to_owned(),
            ],
            ..Purged::default()
        })
    };
    let (text, outcome) = execute_in(&dir, Command::Purge(FormArgs::default()), removed);
    outcome.unwrap();
    assert_eq!(
        text,
        "removed pins under /sys/fs/bpf/x\nremoved address 169.254.53.53 on lo\n"
    );
    assert_eq!(
        execute_in(&dir, Command::Purge(FormArgs::default()), |_| Ok(
            Purged::default()
        ))
        .0,
        "nothing to remove\n"
    );
}

#[test]
fn purge_says_it_as_json_too() {
    let dir = TempDir::new().unwrap();
    let purge = |_: &Paths| {
        Ok(Purged {
            removed: vec!["pin a".to_owned()],
            failed: vec!["pin b: busy".to_owned()],
        })
    };
    let command = Command::Purge(FormArgs { json: true });
    let (text, outcome) = execute_in(&dir, command, purge);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = serde_json::json!({"removed": ["pin a"], "failed": ["pin b: busy"]});
    assert_eq!(said, expected);
    assert_eq!(outcome.unwrap_err().code(), EXIT_FAILED);
}

#[test]
fn every_command_that_tells_something_has_a_form_for_programs() {
    /// What they print is a file.
    const NONE: [&str; 3] = ["capture", "completions", "man"];
    let cli = <Cli as clap::CommandFactory>::command();
    let without = cli
        .get_subcommands()
        .filter(|one| {
            !one.get_arguments()
                .any(|arg| arg.get_long() == Some("json"))
        })
        .map(clap::Command::get_name);
    let without: std::collections::BTreeSet<_> = without.collect();
    assert_eq!(without, std::collections::BTreeSet::from(NONE));
}

#[test]
fn purge_says_what_it_could_not_remove_after_what_it_did() {
    let dir = TempDir::new().unwrap();
    let purge = |_: &Paths| {
        Ok(Purged {
            removed: vec!["route unreachable 11.0.0.0/8".to_owned()],
            failed: vec!["/sys/fs/bpf/x/v1/LB_FLOWS: busy".to_owned()],
        })
    };
    let (text, outcome) = execute_in(&dir, Command::Purge(FormArgs::default()), purge);
    assert_eq!(text, "removed route unreachable 11.0.0.0/8\n");
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), EXIT_FAILED);
    assert!(error.to_string().contains("LB_FLOWS: busy"), "{error}");
}

#[test]
fn purge_does_not_pull_the_ground_from_under_a_running_agent() {
    let dir = TempDir::new().unwrap();
    let _agent = RunDir::claim(dir.path()).unwrap();
    let error = execute_in(&dir, Command::Purge(FormArgs::default()), no_purge)
        .1
        .unwrap_err();
    assert!(error.to_string().contains("is at work on"), "{error}");
    assert_eq!(error.code(), EXIT_FAILED);
}

#[test]
fn no_agent_starts_while_purge_is_at_work() {
    let dir = TempDir::new().unwrap();
    let purge = |paths: &Paths| {
        assert!(matches!(
            RunDir::claim(&paths.run_dir),
            Err(ClaimError::Taken { .. })
        ));
        Ok(Purged::default())
    };
    execute_in(&dir, Command::Purge(FormArgs::default()), purge)
        .1
        .unwrap();
}
