//! Tells a syslog server of backends that go down, come up or drain, as HAProxy does: over UDP (RFC 5426), in HAProxy's
//! words, a message each as RFC 5424 has it.
#![forbid(unsafe_code)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::UdpSocket;
use tracing::warn;
use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime as _, SystemTime},
};

use super::stats::{Event, Events};

/// The facility that dockercloud/haproxy logs with.
const LOCAL0: u8 = 16;
/// RFC 5424, section 6.2.1: a server of HAProxy's that goes down is an alert, all else a notice.
const ALERT: u8 = 1;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;

/// A socket to a syslog server.
#[derive(Debug)]
pub struct Syslog {
    socket: std::net::UdpSocket,
    to: SocketAddr,
    /// What each message begins with after its time.
    sender: String,
}

/// One message.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    severity: u8,
    text: String,
}

// === impl Syslog ===

impl Syslog {
    /// Opens a socket to `to`; `node`: the node's host name.
    ///
    /// # Errors
    ///
    /// If the system has none of that family.
    pub fn open(to: SocketAddr, node: &str) -> io::Result<Self> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Not connected: then the kernel would report what the server refused, and there is nobody to tell.
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            to,
            sender: format!("{} lb-agent {}", host(node), std::process::id()),
        })
    }

    /// Sends what is told, for ever. Whoever tells never waits: what is forgotten before it could be sent is counted.
    pub async fn follow(self, events: Events) {
        let Self { socket, to, sender } = self;
        let socket = match UdpSocket::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => return warn!("nothing is told to --syslog {to}: {error}"),
        };
        let (mut last, mut failing) = (0, false);
        loop {
            let new = events.next(last).await;
            let messages = lost(&new, last)
                .into_iter()
                .chain(new.iter().filter_map(message));
            for message in messages {
                let sent = socket
                    .send_to(message.line(&now(), &sender).as_bytes(), to)
                    .await;
                match sent {
                    Ok(_) => failing = false,
                    Err(error) if !failing => {
                        failing = true;
                        warn!("cannot send to --syslog {to}: {error}");
                    }
                    Err(_) => {}
                }
            }
            last = new.last().map_or(last, |event| event.number);
        }
    }
}

// === impl Message ===

impl Message {
    /// `<PRI>1 TIME HOST lb-agent PID - - TEXT`: RFC 5424, section 6.
    fn line(&self, at: &str, sender: &str) -> String {
        let Self { severity, text } = self;
        let priority = LOCAL0 * 8 + severity;
        // One line, whatever a tenant wrote.
        let text = text.replace(|c: char| c.is_control(), " ");
        format!("<{priority}>1 {at} {sender} - - {text}")
    }
}

/// What is said of an event; `None`: it is about no backend's state.
fn message(event: &Event) -> Option<Message> {
    let (service, backend) = (event.service.as_deref()?, event.backend?);
    if event.what != Event::STATE {
        return None;
    }
    let (severity, state) = match event.to.as_deref()? {
        "active" => (NOTICE, "UP"),
        "standby" => (NOTICE, "UP (standby)"),
        "draining" => (NOTICE, "DRAIN"),
        "maintenance" => (NOTICE, "MAINT"),
        "down" => (ALERT, "DOWN"),
        _ => return None,
    };
    let reason = match event.reason.as_str() {
        "" => String::new(),
        reason => format!(", reason: {reason}"),
    };
    Some(Message {
        severity,
        text: format!("Server {service}/{backend} is {state}{reason}."),
    })
}

/// What is said of events that are forgotten already; `last`: the latest that was told.
fn lost(new: &[Event], last: u64) -> Option<Message> {
    let between = new.first()?.number - 1 - last;
    (between > 0).then(|| Message {
        severity: WARNING,
        text: format!("{between} changes came too fast to be told."),
    })
}

/// As RFC 5424 has it: 1 to 255 visible characters.
fn host(node: &str) -> String {
    let visible = node.chars().filter(char::is_ascii_graphic);
    match visible.take(255).collect::<String>() {
        none if none.is_empty() => "-".to_owned(),
        host => host,
    }
}

/// The moment that it is, as RFC 3339 has it.
fn now() -> String {
    let mut text = String::new();
    match SystemTime.format_time(&mut Writer::new(&mut text)) {
        Ok(()) => text,
        Err(_) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn changed(to: &str, reason: &str) -> Event {
        Event {
            backend: Some(([10, 0, 0, 1], 8080).into()),
            from: Some("active".to_owned()),
            to: Some(to.to_owned()),
            reason: reason.to_owned(),
            ..Event::of_service(Event::STATE, "web.docker:80/tcp".to_owned())
        }
    }

    #[test]
    fn a_message_has_its_severity_and_stays_on_one_line() {
        for (to, reason, expected) in [
            (
                "down",
                "no\nanswer",
                "<129>1 T node lb-agent 7 - - Server web.docker:80/tcp/10.0.0.1:8080 is DOWN, reason: no answer.",
            ),
            (
                "active",
                "",
                "<133>1 T node lb-agent 7 - - Server web.docker:80/tcp/10.0.0.1:8080 is UP.",
            ),
            (
                "draining",
                "",
                "<133>1 T node lb-agent 7 - - Server web.docker:80/tcp/10.0.0.1:8080 is DRAIN.",
            ),
        ] {
            let message = message(&changed(to, reason)).expect("a message");
            assert_eq!(message.line("T", "node lb-agent 7"), expected);
        }
        let added = Event::of_service("service added", "web.docker:80/tcp".to_owned());
        assert_eq!(message(&added), None);
        assert_eq!(host("n\u{f6} de"), "nde");
        assert_eq!(host(""), "-");
    }

    #[test]
    fn what_was_forgotten_before_it_was_told_is_counted() {
        let event = |number| Event {
            number,
            ..changed("down", "")
        };
        let text = |new: &[Event], last| lost(new, last).map(|one| one.text);
        assert_eq!(text(&[], 7), None);
        assert_eq!(text(&[event(1), event(2)], 0), None);
        assert_eq!(text(&[event(8)], 7), None);
        let three = "3 changes came too fast to be told.".to_owned();
        assert_eq!(text(&[event(11), event(12)], 7), Some(three));
    }

    #[tokio::test]
    async fn a_server_gets_what_changed_and_nothing_else() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let to = server.local_addr().expect("an address");
        let events = Events::default();
        events.push(Event::of_service("service added", "web:80/tcp".to_owned()));
        events.push(changed("active", ""));
        let syslog = Syslog::open(to, "node").expect("a socket");
        let task = tokio::spawn(syslog.follow(events.clone()));
        let mut packet = [0; 2_048];
        for (state, rest) in [
            ("133", "is UP."),
            ("129", "is DOWN, reason: connection refused."),
        ] {
            let received = server.recv(&mut packet);
            let received = tokio::time::timeout(Duration::from_secs(20), received).await;
            let length = received.expect("in time").expect("received");
            let told = String::from_utf8_lossy(&packet[..length]);
            assert!(told.starts_with(&format!("<{state}>1 20")), "{told}");
            let pid = std::process::id();
            let text =
                format!(" node lb-agent {pid} - - Server web.docker:80/tcp/10.0.0.1:8080 {rest}");
            assert!(told.ends_with(&text), "{told}");
            // It waits for more by now, or sees it at once.
            events.push(changed("down", "connection refused"));
        }
        task.abort();
    }
}
