//! What is logged of a change: a line for machines, or fields for the journal.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use lb_tests::{
    lab::wait_for,
    stage::{PATIENCE, Stage},
};
use serde_json::Value;

const SERVICE: &str = "10.99.0.1:80/tcp";
const FIRST: &str = "10.77.0.11:80";
const SERVICES: &str =
    "services:\n- {address: 10.99.0.1, port: 80, backends: ['10.77.0.11:80', '10.77.0.12:80']}\n";
const CHANGED: &str = "backend state changed";

/// In the place of journald: what is sent to its socket. It listens from the beginning, since who logs waits for it.
struct Journal {
    dir: PathBuf,
    entries: Arc<Mutex<Vec<String>>>,
}

impl Drop for Journal {
    fn drop(&mut self) {
        // What cannot be removed is in the folder for such things.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Journal {
    fn open() -> Self {
        let dir = std::env::temp_dir().join(format!("lb-journal-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let socket = UnixDatagram::bind(dir.join("socket")).expect("a socket");
        let entries = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&entries);
        thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(len) = socket.recv(&mut bytes) {
                let entry = String::from_utf8_lossy(&bytes[..len]).into_owned();
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push(entry);
            }
        });
        Self { dir, entries }
    }

    fn find(&self, text: &str) -> Option<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find(|entry| entry.contains(text)).cloned()
    }
}

/// Has the operator drain the first backend; the state that it is shown in then.
fn drain(stage: &Stage) -> String {
    let done = stage.run(&["drain", FIRST]);
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    wait_for("it is drained", PATIENCE, || {
        let status = stage.status();
        let backends = status["services"][0]["backends"].as_array()?.clone();
        let first = backends.into_iter().find(|one| one["addr"] == FIRST)?;
        let state = first["state"].as_str()?.to_owned();
        (state != "active").then_some(state)
    })
    .expect("it is")
}

#[test]
fn where_standard_error_is_no_terminal_each_line_is_an_object_and_each_change_one_line() {
    let stage = Stage::up(SERVICES, &[]);
    let state = drain(&stage);
    let lines = wait_for("the change is logged", PATIENCE, || {
        let log = stage.agent.stderr();
        let whole = log.ends_with('\n') && log.contains(CHANGED);
        whole.then_some(log)
    })
    .expect("it is");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    for line in &lines {
        assert!(
            line["level"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
    }
    let changes: Vec<_> = lines
        .iter()
        .filter(|line| line["message"] == CHANGED)
        .collect();
    let [change] = changes[..] else {
        panic!("{changes:?}");
    };
    let words = ["service", "backend", "from", "to"].map(|field| &change[field]);
    assert_eq!(
        words,
        [SERVICE, FIRST, "active", state.as_str()],
        "{change}"
    );
    let reason = change["reason"].as_str().unwrap_or_default();
    assert!(!reason.is_empty(), "{change}");
}

#[test]
fn where_standard_error_leads_to_the_journal_a_change_is_an_entry_with_fields() {
    // The socket's path is fixed, so that the agent gets a /run of its own.
    const SCRIPT: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
        mount --bind \"$0\" /run/systemd/journal && \
        export JOURNAL_STREAM=\"$(stat -Lc %d:%i /proc/self/fd/2)\" && exec \"$@\"";
    let journal = Journal::open();
    let dir = journal.dir.display().to_string();
    let own = ["unshare", "--mount", "--propagation", "slave"];
    let starter = [&own[..], &["sh", "-c", SCRIPT, &dir]].concat();
    let stage = Stage::up_with(&starter, SERVICES, &[]);
    let state = drain(&stage);
    let entry = wait_for("the change is in the journal", PATIENCE, || {
        journal.find(CHANGED)
    })
    .expect("it is");
    for part in [
        "SYSLOG_IDENTIFIER",
        "lb-agent",
        "F_SERVICE",
        SERVICE,
        "F_BACKEND",
        FIRST,
        "F_FROM",
        "F_TO",
        &state,
        "F_REASON",
    ] {
        assert!(entry.contains(part), "{part}: {entry}");
    }
    assert_eq!(stage.agent.stderr(), "", "nothing is said twice");
}

#[test]
fn a_journal_that_is_asked_for_and_not_there_ends_the_start() {
    const SCRIPT: &str = "mount -t tmpfs none /run && exec \"$@\"";
    let agent = lb_tests::lab::programs::agent().expect("an agent");
    let own = ["--mount", "--propagation", "slave", "sh", "-c", SCRIPT];
    let asked = ["--services", "/dev/null", "--log-format", "journald"];
    let argv = [&own[..], &["sh", agent.as_str(), "--iface", "lo"], &asked].concat();
    let ended = std::process::Command::new("unshare")
        .args(argv)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot reach journald") && said.contains("choose another --log-format"),
        "{said}"
    );
}
