//! Tools that are made for HAProxy, as Debian and PyPI have them, against a running agent.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    admin::{
        PROXY, SERVERS, VIP, ask, expect_status, finish, page, rows, run, socket, stage, venv,
    },
    lab::wait_until,
    stage::{PATIENCE, Stage, connect},
};

/// New connections come to these servers alone.
fn only(stage: &Stage, name: &str) {
    for _ in 0..20 {
        let (_, came) = connect(&stage.clients[0], VIP).expect("a connection");
        assert_eq!(came, name);
    }
}

fn both(stage: &Stage) {
    let mut seen = std::collections::BTreeSet::new();
    let all = wait_until("both take connections", PATIENCE, || {
        seen.insert(connect(&stage.clients[0], VIP).expect("a connection").1);
        seen.len() == 2
    });
    all.expect("they do");
}

#[test]
fn the_exporter_reads_pages_and_socket() {
    let stage = stage("");
    for uri in [
        "http://127.0.0.1:9090/haproxy?stats;csv".to_owned(),
        format!("unix:{}", socket(&stage)),
    ] {
        let flags = [
            "prometheus-haproxy-exporter",
            &format!("--haproxy.scrape-uri={uri}"),
            "--web.listen-address=127.0.0.1:9101",
        ];
        let exporter = stage.node.start("exporter", &flags).expect("started");
        let scrape = || {
            let got = finish(
                &stage,
                &[
                    "curl",
                    "-sSf",
                    "--max-time",
                    "5",
                    "http://127.0.0.1:9101/metrics",
                ],
            );
            (got.status.code() == Some(0)).then_some(got.stdout)
        };
        let mut text = String::new();
        let up = wait_until("it has read", PATIENCE, || {
            text = scrape().unwrap_or_default();
            text.contains("haproxy_up 1")
        });
        assert!(up.is_ok(), "{uri}: {text}\n{}", exporter.stderr());
        for server in SERVERS {
            let line = format!("haproxy_server_up{{backend=\"{PROXY}\",server=\"{server}\"}} 1");
            assert!(text.contains(&line), "{uri}: no {line} in\n{text}");
        }
        assert!(
            text.contains(&format!("haproxy_backend_up{{backend=\"{PROXY}\"}} 1")),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "haproxy_frontend_current_sessions{{frontend=\"{PROXY}\"}}"
            )),
            "{text}"
        );
        assert!(
            text.contains("haproxy_exporter_csv_parse_failures_total 0"),
            "{text}"
        );
        drop(exporter);
    }
}

#[test]
fn haproxytool_lists_drains_and_brings_back() {
    let stage = stage("");
    let (path, program) = (socket(&stage), venv().join("bin/haproxytool"));
    let program = program.display().to_string();
    let tool = |kind: &str, words: &[&str]| {
        let head = [program.as_str(), kind, "-F", &path];
        run(&stage, &[&head, words].concat())
    };
    let listed = tool("server", &["-l"]);
    for server in SERVERS {
        assert!(listed.contains(server), "{listed}");
    }
    assert!(tool("backend", &["-l"]).contains(PROXY));
    assert!(tool("frontend", &["-l"]).contains(PROXY));
    assert!(tool("haproxy", &["-i"]).contains("HAProxy"));
    both(&stage);
    for (flag, status) in [
        ("-n", "DRAIN"),
        ("-R", "UP"),
        ("-t", "MAINT"),
        ("-R", "UP"),
        ("-d", "MAINT"),
        ("-e", "UP"),
    ] {
        tool("server", &[flag, SERVERS[0]]);
        expect_status(&stage, SERVERS[0], status);
        match status {
            "UP" => both(&stage),
            _ => only(&stage, "s2"),
        }
    }
}

#[test]
fn haproxyadmin_drains_weighs_and_brings_back() {
    const SCRIPT: &str = "import sys\n\
                          from haproxyadmin import haproxy\n\
                          path, proxy, name, word = sys.argv[1:]\n\
                          server, = haproxy.HAProxy(socket_file=path).server(name, backend=proxy)\n\
                          done = server.setweight(int(word)) if word.isdigit() else server.setstate(word)\n\
                          print(done, server.status, server.weight)\n";
    let stage = stage("");
    let (path, python) = (socket(&stage), venv().join("bin/python"));
    let python = python.display().to_string();
    both(&stage);
    for (word, said) in [
        ("drain", "True DRAIN 1\n"),
        ("ready", "True UP 1\n"),
        ("maint", "True MAINT 1\n"),
        ("ready", "True UP 1\n"),
        ("disable", "True MAINT 1\n"),
        ("enable", "True UP 1\n"),
        ("0", "True UP 0\n"),
        ("1", "True UP 1\n"),
    ] {
        let argv = [&python, "-c", SCRIPT, &path, PROXY, SERVERS[0], word];
        assert_eq!(run(&stage, &argv), said, "{word}");
        match said {
            "True UP 1\n" => both(&stage),
            _ => only(&stage, "s2"),
        }
    }
}

/// Where Debian has plugins of Nagios and Icinga.
const PLUGINS: &str = "/usr/lib/nagios/plugins";
const OK: Option<i32> = Some(0);
const CRITICAL: Option<i32> = Some(2);

#[test]
fn plugins_of_nagios_see_who_is_out_and_who_is_down() {
    let stage = stage("");
    let (path, url) = (socket(&stage), "http://127.0.0.1:9090/haproxy?stats");
    let plugin = |name: &str, flags: &[&str]| {
        let program = format!("{PLUGINS}/{name}");
        let done = finish(&stage, &[&[program.as_str()], flags].concat());
        (done.status.code(), done.stdout + &done.stderr)
    };
    let stats = |flags: &[&str]| {
        let by_socket = plugin("check_haproxy_stats", &[&["-s", &path], flags].concat());
        let by_page = plugin("check_haproxy_stats", &[&["-U", url], flags].concat());
        assert_eq!(by_socket, by_page);
        by_socket
    };
    let whole = || plugin("check_haproxy", &["-u", &format!("{url};csv")]);
    let says = |(code, text): (Option<i32>, String), expected: Option<i32>, part: &str| {
        assert!(code == expected && text.contains(part), "{code:?}: {text}");
    };
    let order = |words: &str| {
        let line = format!("set server {PROXY}/{} {words}", SERVERS[0]);
        assert_eq!(ask(&stage, &line), "\n");
    };
    says(stats(&[]), OK, "checked 4 proxies");
    says(whole(), OK, "(Active: 2/2)");
    for (state, status, flag) in [("drain", "DRAIN", "-n"), ("maint", "MAINT", "-m")] {
        order(&format!("state {state}"));
        says(stats(&[]), CRITICAL, &format!("{} is {status}", SERVERS[0]));
        says(stats(&[flag]), OK, "");
        says(whole(), OK, "(Active: 1/2)");
    }
    order("state ready");
    order("health down");
    says(stats(&["-n", "-m"]), CRITICAL, " is DOWN");
    says(whole(), CRITICAL, " is DOWN on");
    order("state ready");
    says(stats(&[]), OK, "checked 4 proxies");
}

/// hatop on a terminal of its own: keys are sent one after the other, and what it has drawn is printed.
const TERMINAL: &str = r#"
import os, pty, select, struct, fcntl, sys, termios, time
keys = [k.encode().decode('unicode_escape').encode('latin-1') for k in sys.argv[2:]]
pid, fd = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'xterm'
    os.execvp('hatop', ['hatop', '-s', sys.argv[1], '-i', '1'])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 160, 0, 0))
seen, deadline = b'', time.time() + 40
def read(seconds):
    global seen
    end = time.time() + seconds
    while time.time() < min(end, deadline):
        if select.select([fd], [], [], 0.2)[0]:
            try:
                seen += os.read(fd, 65536)
            except OSError:
                return
read(3)
for key in keys:
    os.write(fd, key)
    read(1)
try:
    os.write(fd, b'q')
except OSError:
    pass
read(2)
sys.stdout.buffer.write(seen)
"#;

#[test]
fn hatop_shows_all_and_takes_one_out_and_back() {
    let stage = stage("");
    let path = socket(&stage);
    let hatop = |keys: &[&str]| {
        run(
            &stage,
            &[&["python3", "-c", TERMINAL, &path], keys].concat(),
        )
    };
    let drawn = hatop(&[]);
    for word in [PROXY, SERVERS[0], SERVERS[1], "BACKEND", "HAProxy"] {
        assert!(drawn.contains(word), "no {word} in {drawn:?}");
    }
    // Which line a key moves to is hatop's own affair: down until one is on a server. F10: out; F9: in again.
    let (down, f9, f10) = ("\\x1bOB", "\\x1b[20~", "\\x1b[21~");
    let out = (1..=5).find_map(|lines| {
        hatop(&[&vec![down; lines][..], &[f10]].concat());
        let rows = rows(&page(&stage, "/;csv"));
        let is_out = |server: &&&str| rows[**server]["status"] == "MAINT";
        Some((lines, SERVERS.iter().find(is_out)?))
    });
    let (lines, server) = out.expect("a server is out");
    hatop(&[&vec![down; lines][..], &[f9]].concat());
    expect_status(&stage, server, "UP");
    both(&stage);
}

#[test]
fn the_stats_socket_drains_and_weighs_for_real() {
    let stage = stage("");
    both(&stage);
    let server = format!("{PROXY}/{}", SERVERS[0]);
    assert_eq!(
        ask(&stage, &format!("set server {server} state drain")),
        "\n"
    );
    // The answer comes when it is so.
    only(&stage, "s2");
    let shown = rows(&ask(&stage, "show stat"));
    assert_eq!(shown[SERVERS[0]]["status"], "DRAIN");
    assert_eq!(
        ask(&stage, &format!("set server {server} state ready")),
        "\n"
    );
    both(&stage);
    assert_eq!(ask(&stage, &format!("set weight {server} 0")), "\n");
    only(&stage, "s2");
    assert_eq!(
        ask(&stage, &format!("get weight {server}")),
        "0 (initial 1)\n\n"
    );
    assert_eq!(ask(&stage, &format!("set weight {server} 100%")), "\n");
    both(&stage);
    let events = page(&stage, "/v1/events");
    assert!(
        events.contains("by the operator") && events.contains("10.77.0.11:80"),
        "{events}"
    );
}
