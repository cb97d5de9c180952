//! Whoever wants everything to be read anew is heard: a signal, a command, or a tool of Marathon-LB.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use lb_tests::{
    admin::{page, stage},
    lab::wait_until,
    stage::Stage,
};
use rustix::process::Signal;

/// Much sooner than the file would be read by itself, and all the more four times in a row.
const SOON: Duration = Duration::from_secs(5);

/// When the file was last read, ms.
fn read_at(stage: &Stage) -> u64 {
    let status = stage.status();
    status["providers"][0]["last_sync"].as_u64().unwrap_or(0)
}

/// Has everything read anew.
type Wish = fn(&mut Stage);

#[test]
fn a_signal_a_command_and_a_page_have_everything_read_anew() {
    let mut stage = stage("");
    let wishes: [(&str, Wish); 4] = [
        ("SIGHUP", |stage| {
            stage.agent.signal(Signal::HUP).expect("sent")
        }),
        ("SIGUSR1", |stage| {
            stage.agent.signal(Signal::USR1).expect("sent")
        }),
        ("lb-agent resync", |stage| {
            let said = stage.print(&["resync"]);
            assert!(said.contains("is read again"), "{said}");
        }),
        ("Marathon-LB's signal", |stage| {
            let said = page(stage, "/_mlb_signal/hup");
            assert_eq!(said, "everything is read and compared again\n");
        }),
    ];
    for (name, wish) in wishes {
        let before = read_at(&stage);
        assert!(before > 0, "it was read at the start");
        wish(&mut stage);
        wait_until(name, SOON, || read_at(&stage) > before).expect("the file is read");
        assert!(!stage.agent.has_ended(), "{name} does not end the agent");
    }
}
