//! Who gets a port of the node, and who is told why not.

use super::*;
use crate::catalog::{CatalogBackend, Properties};

const V4: &str = "10.0.0.1";
const V6: &str = "fd00::1";

/// A service at this VIP with ports of the node.
fn service(vip: &str, external: &[u16], backend: &str) -> (ServiceKey, Service) {
    let key = ServiceKey::tcp(vip);
    let backend = CatalogBackend {
        app: vip.into(),
        ..CatalogBackend::plain(backend)
    };
    let properties = Properties {
        external: external
            .iter()
            .map(|port| Port::new(*port).unwrap())
            .collect(),
        ..Properties::default()
    };
    let service = Service {
        name: None,
        properties: properties.into(),
        backends: vec![backend],
    };
    (key, service)
}

fn desired<const N: usize>(services: [(ServiceKey, Service); N]) -> Desired {
    Desired {
        services: services.into(),
        ..Desired::default()
    }
}

fn at(addr: &str, port: u16) -> Endpoint {
    let (addr, proto) = (addr.parse().unwrap(), 6);
    Endpoint { addr, port, proto }
}

/// What the node is like beyond its addresses.
#[derive(Default)]
struct Given {
    listeners: Vec<Listener>,
    standing: BTreeSet<Endpoint>,
    unsettled: BTreeSet<Endpoint>,
}

impl Given {
    /// Grants; gives who stands where, and why others do not.
    fn grant(&self, holders: &mut Holders, mut desired: Desired) -> (Vec<String>, Vec<String>) {
        let own = ["10.0.0.1", "169.254.53.53", "fd00::1", "fe80::1"];
        let ground = Ground {
            addresses: &own.map(|addr| addr.parse().unwrap()).into(),
            ports: PortRange {
                min: 10_000,
                max: 20_000,
            },
            standing: &self.standing,
            unsettled: &self.unsettled,
            listeners: &|| Ok(self.listeners.clone()),
        };
        holders.grant(&mut desired, &ground);
        let external = desired.external.iter();
        let reason = |notice: Notice| {
            assert_eq!(notice.kind, NoticeKind::Refused);
            notice.reason
        };
        (
            external.map(|(at, of)| format!("{at} {of}")).collect(),
            desired.problems.into_iter().map(reason).collect(),
        )
    }
}

fn granted<const N: usize>(services: [(ServiceKey, Service); N]) -> (Vec<String>, Vec<String>) {
    Given::default().grant(&mut Holders::default(), desired(services))
}

fn listener(at: &str, protocol: Protocol) -> Listener {
    let at = at.parse().unwrap();
    Listener { protocol, at }
}

#[test]
fn a_service_stands_at_every_own_address_of_its_family_but_those_of_a_link() {
    let (stands, refused) = granted([
        service("11.0.0.1:80", &[10_000, 20_000], "10.1.0.1:80"),
        service("[fd01:c::1]:81", &[10_001], "[fd02::1]:80"),
    ]);
    assert_eq!(
        stands,
        [
            "10.0.0.1:10000/tcp 11.0.0.1:80/tcp",
            "10.0.0.1:20000/tcp 11.0.0.1:80/tcp",
            "[fd00::1]:10001/tcp [fd01:c::1]:81/tcp",
        ]
    );
    assert_eq!(refused, [""; 0]);
}

#[test]
fn a_port_that_the_operator_does_not_allow_is_refused_and_the_others_are_granted() {
    let (stands, refused) = granted([service("11.0.0.1:80", &[22, 10_000, 20_001], "10.1.0.1:80")]);
    assert_eq!(stands, ["10.0.0.1:10000/tcp 11.0.0.1:80/tcp"]);
    assert_eq!(
        refused,
        [
            "VIP 11.0.0.1:80 cannot have port 20001/tcp of this node: it is outside --node-ports 10000-20000",
            "VIP 11.0.0.1:80 cannot have port 22/tcp of this node: it is outside --node-ports 10000-20000",
        ]
    );
}

#[test]
fn a_port_where_a_socket_listens_is_refused_unless_we_were_there_before() {
    let services = || desired([service("11.0.0.1:80", &[10_000], "10.1.0.1:80")]);
    for (socket, taken) in [
        (listener("0.0.0.0:10000", Protocol::Tcp), true),
        (listener("[::]:10000", Protocol::Tcp), true),
        (listener("10.0.0.1:10000", Protocol::Tcp), true),
        (listener("127.0.0.1:10000", Protocol::Tcp), false),
        (listener("0.0.0.0:10000", Protocol::Udp), false),
        (listener("0.0.0.0:10001", Protocol::Tcp), false),
    ] {
        let mut given = Given {
            listeners: vec![socket],
            ..Given::default()
        };
        let (stands, refused) = given.grant(&mut Holders::default(), services());
        assert_eq!(stands.is_empty(), taken, "{socket:?}");
        let reason = format!(
            "VIP 11.0.0.1:80 cannot have port 10000/tcp of this node: a socket of this host listens at {}",
            socket.at
        );
        assert_eq!(refused, [reason][..usize::from(taken)]);
        given.standing.insert(at(V4, 10_000));
        let (stands, _) = given.grant(&mut Holders::default(), services());
        assert_eq!(stands.len(), 1, "{socket:?}");
    }
}

#[test]
fn who_had_a_port_first_keeps_it_until_he_gives_it_up_also_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let late = || service("11.0.0.1:80", &[10_000], "10.1.0.1:80");
    let early = |ports: &[u16]| service("11.0.0.2:80", ports, "10.1.0.2:80");
    let given = Given::default();
    let mut holders = Holders::load(dir.path());
    given.grant(&mut holders, desired([early(&[10_000])]));
    holders.save().unwrap();
    let mut again = Holders::load(dir.path());
    for holders in [&mut holders, &mut again] {
        let (stands, refused) = given.grant(holders, desired([late(), early(&[10_000])]));
        assert_eq!(stands, ["10.0.0.1:10000/tcp 11.0.0.2:80/tcp"]);
        assert_eq!(
            refused,
            [
                "VIP 11.0.0.1:80 cannot have port 10000/tcp of this node: VIP 11.0.0.2:80 has it, which came first"
            ]
        );
    }
    let (stands, refused) = given.grant(&mut again, desired([late(), early(&[])]));
    assert_eq!(stands, ["10.0.0.1:10000/tcp 11.0.0.1:80/tcp"]);
    assert_eq!(refused, [""; 0]);
}

#[test]
fn a_port_of_a_provider_that_was_not_read_yet_is_given_to_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut holders = Holders::load(dir.path());
    let unread = service("11.0.0.2:80", &[10_000], "10.1.0.2:80");
    Given::default().grant(&mut holders, desired([unread]));
    let read = || desired([service("11.0.0.1:80", &[10_000], "10.1.0.1:80")]);
    let waiting = Given {
        unsettled: [at(V4, 10_000)].into(),
        ..Given::default()
    };
    let (stands, refused) = waiting.grant(&mut holders, read());
    assert_eq!(stands, [""; 0]);
    assert_eq!(refused.len(), 1);
    let (stands, _) = Given::default().grant(&mut holders, read());
    assert_eq!(stands.len(), 1, "it was read and does not want the port");
}

#[test]
fn who_waits_for_his_provider_after_a_reboot_is_not_forgotten() {
    let mut holders = Holders::default();
    let ours = || service("11.0.0.2:80", &[10_000], "10.1.0.2:80");
    let given = Given::default();
    given.grant(&mut holders, desired([ours()]));
    let nothing_yet = Desired {
        waiting: [crate::provider::ProviderId::new("test", "a")].into(),
        ..Desired::default()
    };
    given.grant(&mut holders, nothing_yet);
    let other = service("11.0.0.1:80", &[10_000], "10.1.0.1:80");
    let (stands, _) = given.grant(&mut holders, desired([other, ours()]));
    assert_eq!(stands, ["10.0.0.1:10000/tcp 11.0.0.2:80/tcp"]);
}

#[test]
fn a_service_whose_backend_is_the_port_itself_would_call_itself() {
    let (stands, refused) = granted([service(
        "[fd01:c::1]:80",
        &[10_000],
        &format!("[{V6}]:10000"),
    )]);
    assert_eq!(stands, [""; 0]);
    assert_eq!(
        refused,
        [
            "VIP [fd01:c::1]:80 cannot have port 10000/tcp of this node: the backend [fd00::1]:10000 is there itself"
        ]
    );
}

#[test]
fn a_damaged_file_forgets_who_was_first_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["{", r#"{"x/tcp": "a:80"}"#, r#"{"1/sctp": "a:80"}"#] {
        fs::write(dir.path().join(FILE), text).unwrap();
        assert!(Holders::load(dir.path()).by_place.is_empty(), "{text}");
    }
}
