//! Clients of the stats socket that misbehave.

use super::*;
use crate::admin::tests::running::many;

#[test]
fn nonsense_and_silence_harm_nobody() {
    let desk = Desk::open(Level::Admin);
    assert_eq!(desk.ask(&"x".repeat(100_000)), "");
    let control = desk.ask("\u{1b}[2J\0\u{7}");
    assert!(control.starts_with("Unknown command: '[2J'"), "{control:?}");
    assert_eq!(desk.ask(""), "\n");
    let idle: Vec<_> = (0..70).map(|_| UnixStream::connect(&desk.path)).collect();
    desk.logged(&["WARN", "all 64 connections to the stats socket are taken"]);
    // When the first have been silent for too long, there is room again.
    let mut stream = desk.connect();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(b"show version\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "1.2.3\n\n");
    drop(idle);
}

#[test]
fn who_never_ends_a_line_or_takes_no_answer_is_cut_off_and_said() {
    let desk = Desk::over(Level::User, many());
    let begun = |text: &[u8]| {
        let mut stream = desk.connect();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream.write_all(text).unwrap();
        stream
    };
    let mut half = begun(b"show ver");
    let mut silent = begun(b"");
    let deaf = begun(b"show stat\n");
    let asked = desk.ask("show version");
    assert_eq!(asked, "1.2.3\n\n", "others are served meanwhile");
    desk.logged(&["WARN", "refused: no whole line within 10 s"]);
    for stream in [&mut half, &mut silent] {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it is cut off");
    }
    desk.logged(&["WARN", "refused: too slow to take an answer"]);
    // It was there all the time.
    drop(deaf);
    let log = desk.running.log();
    assert_eq!(
        log.matches("refused: ").count(),
        2,
        "silence is no mistake: {log}"
    );
}
