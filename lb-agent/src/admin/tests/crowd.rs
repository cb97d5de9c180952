//! Clients of the admin socket that misbehave.

use super::{running::Running, *};

#[test]
fn who_says_nothing_or_nonsense_is_cut_off_and_said_and_commands_get_their_turn() {
    let dir = TempDir::new().unwrap();
    let socket = AdminSocket::open(dir.path()).unwrap();
    let running = Running::start(async |admin, stop| {
        let stopped = stop.cancelled_owned();
        serve(socket, admin, stopped).await.unwrap();
    });
    let connect = || {
        let stream = UnixStream::connect(dir.path().join(SOCKET_NAME)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    };
    let who = format!(
        "user {}, process {} at the admin socket",
        rustix::process::getuid().as_raw(),
        std::process::id()
    );
    let mut wrong = connect();
    wrong.write_all(b"nonsense\r\n\r\n").unwrap();
    running.logged(&["WARN", &who, "refused: no HTTP request"]);
    drop(wrong);
    let idle: Vec<_> = (0..128).map(|_| connect()).collect();
    running.logged(&["WARN", "all 128 connections to the admin socket are taken"]);
    let mut asks = connect();
    write!(asks, "GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    asks.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    running.logged(&["WARN", &who, "refused: no whole request within 10 s"]);
    drop(idle);
}
