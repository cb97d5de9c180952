//! The stats socket as its clients use it.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use super::*;
use crate::admin::{
    report::StatusReport,
    tests::running::{Running, report},
};

mod servers;
mod trouble;

const PATIENCE: Duration = Duration::from_secs(10);

/// A socket that is served.
struct Desk {
    path: PathBuf,
    running: Running,
    _dir: tempfile::TempDir,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.running.end();
        assert!(!self.path.exists(), "the socket goes with the agent");
    }
}

impl Desk {
    fn open(level: Level) -> Self {
        Self::over(level, report())
    }

    /// Shows this report.
    fn over(level: Level, report: StatusReport) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            level,
            ..Place::default()
        };
        let socket = StatsSocket::open(&place, dir.path()).unwrap();
        let serving = async |admin, stop| serve(socket, admin, stop).await.unwrap();
        let running = Running::over(report, serving);
        Self {
            path: dir.path().join("stats.sock"),
            running,
            _dir: dir,
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One line, and all that comes until the socket is closed.
    fn ask(&self, line: &str) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(format!("{line}\n").as_bytes());
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn ordered(&self) -> Vec<String> {
        self.running.ordered()
    }

    fn logged(&self, parts: &[&str]) -> String {
        self.running.logged(parts)
    }
}

#[test]
fn what_is_shown_ends_with_one_empty_line() {
    let desk = Desk::open(Level::Admin);
    let info = desk.ask("show info");
    for line in [
        "Name: HAProxy\n",
        "Version: 1.2.3\n",
        "Pid: 42\n",
        "Nbproc: 1\n",
        "Idle_pct: 100\n",
        "node: n1\n",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
    assert!(info.ends_with("description: lb-agent 1.2.3\n\n"), "{info}");
    let stat = desk.ask("show stat");
    assert!(stat.starts_with("# pxname,svname,"), "{stat}");
    assert!(stat.ends_with(",\n\n"), "{stat}");
    assert_eq!(stat.lines().count(), 6);
    // The two of Datadog's check.
    let both = desk.ask("show info;show stat");
    assert_eq!(both, format!("{info}{stat}"));
    assert_eq!(desk.ask("show stat 7 4 -1").lines().count(), 4);
    assert_eq!(desk.ask("show stat -1 1 0").lines().count(), 3);
    assert_eq!(desk.ask("show stat 8 -1 -1").lines().count(), 2);
    assert_eq!(desk.ask("show backend"), "# name\nweb.x_80\n\n");
    assert_eq!(
        desk.ask("get weight web.x_80/10_0_0_1_80"),
        "3 (initial 4)\n\n"
    );
    let state = desk.ask("show servers state web.x_80");
    let lines: Vec<_> = state.lines().collect();
    assert_eq!(lines[0], "1");
    assert_eq!(lines[1].split(' ').count(), 26, "with the # before them");
    assert!(
        lines[2..4].iter().all(|line| line.split(' ').count() == 25),
        "{state}"
    );
    assert_eq!(desk.ask("show servers conn").lines().count(), 4);
    assert_eq!(
        desk.ask("show servers conn other"),
        "Can't find backend.\n\n"
    );
    assert_eq!(desk.ask("show version"), "1.2.3\n\n");
    assert!(desk.ask("show sess").ends_with('\n'));
    assert!(desk.ask("help").contains("set server <bk>/<srv> state"));
    serde_json::from_str::<serde_json::Value>(&desk.ask("show stat json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&desk.ask("show info json")).unwrap();
}

#[test]
fn changes_are_orders_and_answered_by_an_empty_line() {
    let desk = Desk::open(Level::Admin);
    let server = "web.x_80/10_0_0_1_80";
    let of = "10.0.0.1:80 of web.x:80/tcp";
    for (command, expected) in [
        (
            format!("set server {server} state drain"),
            vec![format!("drain {of}")],
        ),
        (
            format!("set server {server} state maint"),
            vec![format!("maintenance {of}")],
        ),
        (
            format!("disable server {server}"),
            vec![format!("maintenance {of}")],
        ),
        // The weight that the operator gave it stays.
        (
            format!("enable server {server}"),
            vec![format!("enable {of}")],
        ),
        (
            format!("set server {server} health up"),
            vec![format!("health up {of}")],
        ),
        (
            format!("set server {server} health stopping"),
            vec![format!("health stopping {of}")],
        ),
        (
            format!("set server {server} health down"),
            vec![format!("health down {of}")],
        ),
        (
            format!("shutdown sessions server {server}"),
            vec![format!("reset {of}")],
        ),
        (
            format!("disable health {server}"),
            vec![format!("checks off {of}")],
        ),
        (
            format!("set maxconn server {server} 5"),
            vec![format!("limit 5 {of}")],
        ),
        (
            "set maxconn frontend web.x_80 0".to_owned(),
            vec!["limit 0 web.x:80/tcp".to_owned()],
        ),
        (
            "disable frontend web.x_80".to_owned(),
            vec!["stop web.x:80/tcp".to_owned()],
        ),
        (
            "enable frontend web.x_80".to_owned(),
            vec!["open web.x:80/tcp".to_owned()],
        ),
        (
            format!("set weight {server} 9"),
            vec![format!("weight 9 {of}")],
        ),
        (
            format!("set server {server} weight 50%"),
            vec![format!("weight 2 {of}")],
        ),
    ] {
        assert_eq!(desk.ask(&command), "\n", "{command}");
        assert_eq!(desk.ordered(), expected, "{command}");
    }
    assert_eq!(
        desk.ask(&format!("set weight {server} 13")),
        "no such luck\n\n"
    );
    desk.ordered();
    for (command, expected) in [
        ("set server other/x state ready", "No such backend."),
        ("set server web.x_80/x state ready", "No such server."),
        (
            "set server web.x_80 state ready",
            "Require 'backend/server'.",
        ),
        ("disable server x", "Require 'backend/server'."),
        (
            "set weight web.x_80/10_0_0_1_80 257",
            "Absolute weight can only be between 0 and 256 inclusive.",
        ),
        (
            "set weight web.x_80/10_0_0_1_80",
            "Require <weight> or <weight%>.",
        ),
        (
            "set server web.x_80/10_0_0_1_80 state up",
            "'set server 10_0_0_1_80 state' expects 'ready', 'drain' and 'maint'.",
        ),
        (
            "set server web.x_80/10_0_0_1_80 health ill",
            "'set server 10_0_0_1_80 health' expects 'up', 'stopping', or 'down'.",
        ),
        ("shutdown sessions server web.x_80/x", "No such server."),
        ("shutdown sessions server", "Require 'backend/server'."),
        (
            "shutdown session 0x1",
            "Unknown command: lb-agent has no 'shutdown session'",
        ),
        ("disable health web.x_80", "Require 'backend/server'."),
        (
            "enable health web.x_80/10_0_0_1_80",
            "Health checks are not configured on this server, cannot enable.",
        ),
        ("disable frontend other", "No such frontend."),
        ("enable frontend", "A frontend name is expected."),
        ("set maxconn frontend other 5", "No such frontend."),
        ("set maxconn frontend web.x_80", "Integer value expected."),
        ("set maxconn frontend web.x_80 x", "Integer value expected."),
        ("set maxconn frontend web.x_80 -1", "Value out of range."),
        ("set maxconn server web.x_80/x 5", "No such server."),
        (
            "set maxconn server web.x_80/10_0_0_1_80",
            "Require <maxconn>.",
        ),
        (
            "set maxconn server web.x_80/10_0_0_1_80 many",
            "maxconn string empty or preceded by garbage",
        ),
        (
            "set maxconn server web.x_80/10_0_0_1_80 5x",
            "Trailing garbage in maxconn string",
        ),
        (
            "set maxconn server web.x_80/10_0_0_1_80 4294967296",
            "Value out of range.",
        ),
        (
            "set maxconn global 5",
            "Unknown command: lb-agent has no 'set maxconn global'",
        ),
        ("dance", "Unknown command: 'dance'"),
    ] {
        let answer = desk.ask(command);
        assert!(answer.starts_with(expected), "{command}: {answer}");
        assert!(answer.ends_with("\n\n"), "{command}: {answer:?}");
    }
    assert_eq!(desk.ordered(), [""; 0]);
    assert_eq!(desk.ask("clear counters"), "\n");
}

#[test]
fn counters_begin_anew_where_all_are_cleared() {
    let desk = Desk::open(Level::Admin);
    let flows = || {
        let stat = desk.ask("show stat 7 1 0");
        let line = stat.lines().nth(1).unwrap();
        line.split(',').nth(7).unwrap().to_owned()
    };
    let ever = flows();
    assert_ne!(ever, "0");
    assert_eq!(desk.ask("clear counters"), "\n");
    assert_eq!(flows(), ever, "only maxima");
    assert_eq!(desk.ask("clear counters all"), "\n");
    assert_eq!(flows(), "0");
}

#[test]
fn a_level_keeps_what_is_above_it() {
    let change = "disable server web.x_80/10_0_0_1_80";
    for (level, sess, clear, all) in [
        (Level::User, false, false, false),
        (Level::Operator, true, true, false),
        (Level::Admin, true, true, true),
    ] {
        let desk = Desk::open(level);
        let may = |command: &str| desk.ask(command) != "Permission denied\n\n";
        assert!(may("show stat") && may("show info"));
        assert_eq!(
            (may("show sess"), may("clear counters")),
            (sess, clear),
            "{level:?}"
        );
        assert_eq!(
            (may("clear counters all"), may(change)),
            (all, all),
            "{level:?}"
        );
        assert_eq!(desk.ordered().len(), usize::from(all));
    }
}

#[test]
fn after_prompt_it_goes_on_until_quit() {
    let desk = Desk::open(Level::Admin);
    let mut stream = desk.connect();
    let mut next = |text: &str, end: &str| {
        stream.write_all(text.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let mut one = [0];
        while !bytes.ends_with(end.as_bytes()) {
            assert_eq!(
                stream.read(&mut one).unwrap(),
                1,
                "{}",
                String::from_utf8_lossy(&bytes)
            );
            bytes.push(one[0]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    assert_eq!(next("prompt\n", "> "), "\n> ");
    assert_eq!(next("set timeout cli 60\n", "> "), "\n> ");
    assert_eq!(next("show version\n", "> "), "1.2.3\n\n> ");
    assert!(next("show stat\n", "> ").ends_with(",\n\n> "));
    assert_eq!(next("disable server web.x_80/10_0_0_2_80\n", "> "), "\n> ");
    let mut stream = stream;
    stream.write_all(b"quit\n").unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(desk.ordered().len(), 1);
}

#[test]
fn typed_facts_have_their_place_and_type() {
    let desk = Desk::open(Level::User);
    let text = desk.ask("show info typed");
    assert!(text.starts_with("0.Name.1:POP:str:HAProxy\n"), "{text}");
    assert!(text.contains("\n6.Pid.1:MGP:u64:42\n"), "{text}");
    assert!(text.ends_with(":str:lb-agent 1.2.3\n\n"), "{text}");
    assert_eq!(text.lines().count(), desk.ask("show info").lines().count());
}

#[test]
fn typed_rows_say_what_the_csv_says_a_value_a_line() {
    /// They go on between two questions.
    const AGES: [&str; 3] = ["lastchg", "downtime", "lastsess"];
    let desk = Desk::open(Level::User);
    let csv = desk.ask("show stat 7 4 -1");
    let mut rows = csv.lines().filter(|line| !line.is_empty());
    let head = rows.next().unwrap().trim_start_matches("# ");
    let mut expected = Vec::new();
    for row in rows {
        let cells: Vec<_> = head.split(',').zip(row.split(',')).collect();
        let (_, sid) = cells.iter().find(|(name, _)| *name == "sid").unwrap();
        let known = cells.iter().enumerate();
        let known = known.filter(|(_, (name, value))| !value.is_empty() && !AGES.contains(name));
        expected.extend(known.map(|(place, (name, value))| {
            (format!("S.7.{sid}.{place}.{name}.1"), (*value).to_owned())
        }));
    }
    let typed = desk.ask("show stat 7 4 -1 typed");
    let told: Vec<_> = typed
        .lines()
        .filter(|line| !line.is_empty() && !AGES.iter().any(|age| line.contains(age)))
        .map(|line| {
            let parts: Vec<_> = line.splitn(4, ':').collect();
            let kinds = [["MGP", "u64"], ["MGP", "s32"], ["SOP", "str"]];
            assert!(kinds.contains(&[parts[1], parts[2]]), "{line}");
            (parts[0].to_owned(), parts[3].to_owned())
        })
        .collect();
    assert!(!told.is_empty());
    assert_eq!(told, expected);
    assert!(typed.ends_with("\n\n"), "{typed:?}");
    let all = desk.ask("show stat typed");
    assert!(
        all.starts_with("F.7.0.0.pxname.1:SOP:str:web.x_80\n"),
        "{all}"
    );
}

/// The page for whoever comes from HAProxy.
const COMING: &str = include_str!("../../../../docs/coming-from-haproxy.md");

/// What it has in backticks.
fn told() -> impl Iterator<Item = &'static str> {
    COMING
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn the_docs_tell_what_every_column_means() {
    let told: std::collections::BTreeSet<_> = told().collect();
    for field in crate::admin::stats::csv::FIELDS {
        assert!(told.contains(field), "{field}");
    }
}

#[test]
fn the_docs_tell_what_every_command_does() {
    /// Without what stands for something, and what may be left out.
    fn bare(command: &str) -> String {
        let words = command.split_whitespace();
        let fixed = words.filter(|word| !word.contains(['<', '>', '[', ']', '|', '.']));
        fixed.collect::<Vec<_>>().join(" ")
    }
    let told: std::collections::BTreeSet<_> = told().map(bare).collect();
    for line in commands::COMMANDS.lines() {
        let (usage, _) = line.split_once(" :").unwrap();
        assert!(told.contains(&bare(usage)), "{usage}");
    }
}

#[test]
fn the_log_tells_who_ordered_and_who_was_refused() {
    let desk = Desk::open(Level::Admin);
    let who = format!(
        "user {}, process {} at the stats socket",
        rustix::process::getuid().as_raw(),
        std::process::id()
    );
    desk.ask("disable server web.x_80/10_0_0_1_80");
    desk.logged(&["INFO", "the operator's order", &who, "maintenance"]);
    desk.ask("dance \u{1b}[2J");
    let line = desk.logged(&["WARN", &who, "refused: Unknown command: 'dance"]);
    assert!(!line.contains('\u{1b}'), "{line:?}");
    desk.ask(&"x".repeat(100_000));
    desk.logged(&["WARN", &who, "refused: a line of more than 16384 bytes"]);
    for (command, level, why) in [
        (
            "set weight web.x_80/10_0_0_1_80 257",
            "WARN",
            "Absolute weight",
        ),
        (
            "set server web.x_80/10_0_0_1_80 state up",
            "WARN",
            "'set server",
        ),
        ("disable server web.x_80/none", "INFO", "No such server."),
        ("disable server none/none", "INFO", "No such backend."),
        ("show servers state none", "INFO", "Can't find backend."),
    ] {
        desk.ask(command);
        let command = format!("command=\"{command}\"");
        desk.logged(&[level, &who, &command, &format!("refused: {why}")]);
    }
    let order = "set weight web.x_80/10_0_0_1_80 13";
    assert_eq!(desk.ask(order), "no such luck\n\n");
    desk.logged(&[
        "WARN",
        &who,
        "the operator's order was refused",
        "weight 13",
    ]);
    let log = desk.running.log();
    assert!(!log.contains(order), "it is said once: {log}");
    let desk = Desk::open(Level::User);
    desk.ask("disable server web.x_80/10_0_0_1_80");
    desk.logged(&["WARN", &who, "disable server", "refused: Permission denied"]);
    assert_eq!(desk.ordered(), [""; 0]);
}
