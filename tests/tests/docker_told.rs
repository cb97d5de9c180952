//! A real Docker Engine, and a syslog server that is told of its containers.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::net::UdpSocket;

use lb_tests::{
    stage::PATIENCE,
    yard::{LABEL, Yard},
};

#[test]
fn a_syslog_server_is_told_of_containers_that_drain_come_back_and_are_down() {
    let yard = Yard::up("syslog", &["--syslog", "10.77.0.101"]);
    let server = yard.stage.clients[1].enter(|| UdpSocket::bind("0.0.0.0:514"));
    let server = server.expect("entered").expect("bound");
    server.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    // The next message that ends so.
    let told = |end: &str| loop {
        let mut message = [0; 2_048];
        let length = server.recv(&mut message);
        let length = length.unwrap_or_else(|error| panic!("never {end:?}: {error}"));
        let message = String::from_utf8_lossy(&message[..length]).into_owned();
        if message.ends_with(end) {
            return message;
        }
    };
    yard.run("web-1", &LABEL);
    yard.run("web-2", &LABEL);
    yard.expect("web", 2);
    yard.docker(&["pause", "web-1"]);
    let drains = told(":80 is DRAIN, reason: paused.");
    assert!(drains.starts_with("<133>1 "), "{drains}");
    assert!(
        drains.contains(" - - Server web.docker:80/tcp/"),
        "{drains}"
    );
    yard.docker(&["unpause", "web-1"]);
    told(":80 is UP.");
    // Nobody listens at that port.
    let check = "lb.check=tcp interval=1s fall=1 port=81";
    let labels = ["--label", "lb.vip=db:80", "--label", check];
    yard.run("db", &labels);
    let down = loop {
        let down = told(".");
        if down.contains(":80 is DOWN") {
            break down;
        }
    };
    assert!(down.starts_with("<129>1 "), "{down}");
    assert!(down.contains("Server db.docker:80/tcp/"), "{down}");
    assert!(down.contains(", reason: "), "{down}");
}
