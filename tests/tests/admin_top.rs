//! `lb-agent top` on a terminal of its own: keys take a backend out and bring it back.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{fs, path::PathBuf};

use lb_tests::{
    admin::{SERVERS, expect_status, stage},
    lab::{Process, programs::agent, wait_until},
    stage::{PATIENCE, Stage},
};

/// Runs a program on a terminal, prints what it draws, and its exit code at the end. Keys come by a FIFO.
const TERMINAL: &str = "
import fcntl, os, pty, select, struct, sys, termios
os.mkfifo(sys.argv[1])
typed = os.open(sys.argv[1], os.O_RDWR)
pid, screen = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'xterm'
    os.execv(sys.argv[2], sys.argv[2:])
fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 160, 0, 0))
while True:
    ready = select.select([screen, typed], [], [])[0]
    if typed in ready:
        os.write(screen, os.read(typed, 1))
    if screen in ready:
        try:
            drawn = os.read(screen, 65536)
        except OSError:
            break
        sys.stdout.buffer.write(drawn)
        sys.stdout.buffer.flush()
print('ended with', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

/// Leaves the screen that programs draw on.
const RESTORED: &str = "\u{1b}[?1049l";

/// `lb-agent top` at work.
struct Top {
    process: Process,
    keys: PathBuf,
}

// === impl Top ===

impl Top {
    /// By name, so that the first backend stands first, and is chosen.
    fn start(stage: &Stage) -> Self {
        let keys = stage.node.dir().join("keys");
        let fifo = keys.display().to_string();
        let run_dir = stage.run_dir().display().to_string();
        let program = agent().expect("an agent");
        let top = [
            program.as_str(),
            "top",
            "--sort",
            "name",
            "--run-dir",
            &run_dir,
        ];
        let argv = [&["python3", "-c", TERMINAL, &fifo][..], &top].concat();
        let process = stage.node.start("top", &argv).expect("started");
        let top = Self { process, keys };
        top.expect_drawn("10.77.0.11:80");
        top.expect_drawn("10.77.0.12:80");
        top
    }

    fn expect_drawn(&self, text: &str) {
        let drawn = || self.process.stdout().contains(text);
        let drawn = wait_until("it is drawn", PATIENCE, drawn);
        assert!(drawn.is_ok(), "no {text} in {:?}", self.process.stdout());
    }

    fn press(&self, keys: &str) {
        fs::write(&self.keys, keys).expect("pressed");
    }
}

#[test]
fn keys_take_a_backend_out_and_bring_it_back() {
    let stage = stage("");
    let top = Top::start(&stage);
    for (keys, status) in [("dy", "DRAIN"), ("ay", "UP"), ("my", "MAINT"), ("ay", "UP")] {
        top.press(keys);
        expect_status(&stage, SERVERS[0], status);
        expect_status(&stage, SERVERS[1], "UP");
    }
    // Who does not say yes changes nothing.
    top.press("dnq");
    top.expect_drawn("ended with 0\n");
    expect_status(&stage, SERVERS[0], "UP");
    let drawn = top.process.stdout();
    assert!(drawn.contains(RESTORED), "{drawn:?}");
}

#[test]
fn without_a_terminal_it_prints_where_asked_and_without_an_agent_it_says_so() {
    let mut stage = stage("");
    let done = stage.run(&["top"]);
    assert_eq!(done.status.code(), Some(2), "{}", done.stderr);
    assert!(
        done.stderr.contains("top needs a terminal"),
        "{}",
        done.stderr
    );
    let lines = stage.ask(&["top", "--sort", "name"]);
    let addrs: Vec<_> = lines.as_array().into_iter().flatten().collect();
    assert_eq!(addrs.len(), 2, "{lines}");
    assert_eq!(addrs[0]["backend"], "10.77.0.11:80", "{lines}");
    stage
        .agent
        .signal(rustix::process::Signal::KILL)
        .expect("killed");
    wait_until("it is gone", PATIENCE, || stage.agent.has_ended()).expect("it ends");
    let keys = stage.node.dir().join("keys").display().to_string();
    let run_dir = stage.run_dir().display().to_string();
    let program = agent().expect("an agent");
    let argv = [
        "python3",
        "-c",
        TERMINAL,
        &keys,
        &program,
        "top",
        "--run-dir",
        &run_dir,
    ];
    let done = stage.node.run(&argv).expect("it runs");
    assert!(
        done.stdout.contains("no agent is running"),
        "{}",
        done.stdout
    );
    assert!(done.stdout.ends_with("ended with 3\n"), "{}", done.stdout);
}
