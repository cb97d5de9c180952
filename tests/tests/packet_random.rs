//! Random packets: valid ones, which must come out exactly right, and mutated ones, which must do no harm.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use lb_common::{Reason, SLOTS_SMALL, SNAP_MAX, addr_flag, backend_kind, service_flag};
use lb_tests::{each_way, packet::*};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

const CASES: u32 = 4_000;
/// Names another number of cases, for a run that is left alone for hours.
const CASES_VARIABLE: &str = "LB_PACKET_CASES";

/// Nothing is kept of a failure but what it prints: the seed is in the message.
fn runner() -> TestRunner {
    let cases = match std::env::var(CASES_VARIABLE) {
        Ok(cases) => cases.parse().expect("a number of cases"),
        Err(_) => CASES,
    };
    TestRunner::new(Config {
        cases,
        // As many of the drawn addresses may be ours.
        max_global_rejects: cases,
        failure_persistence: None,
        ..Config::default()
    })
}

const KINDS: [u8; 3] = [backend_kind::HOST, backend_kind::NET, backend_kind::LINK];

/// One service of each kind, on VIPs 1 to 3, open to every source.
fn rig(way: Way) -> Rig {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    // So few that random ones are in use.
    rig.node(way, 30_000, 5);
    for (n, kind) in (1..).zip(KINDS) {
        let at = if kind == backend_kind::HOST {
            way.host()
        } else {
            way.backend(n)
        };
        rig.backend(u32::from(n), backend(way, at, kind));
        rig.service(
            way,
            way.vip(n),
            u32::from(n),
            service_flag::EXTERNAL,
            &repeated(&[u32::from(n)], SLOTS_SMALL),
        );
    }
    rig.sender(way.backend(9).ip(), 1);
    rig.local(1, way.host(), 1);
    rig
}

fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    any::<[u8; 16]>().prop_map(move |b| {
        if v6 {
            Ipv6Addr::from(b).into()
        } else {
            Ipv4Addr::new(b[0], b[1], b[2], b[3]).into()
        }
    })
}

fn segment() -> impl Strategy<Value = Segment> {
    prop_oneof![Just(Segment::Syn), Just(Segment::Ack), Just(Segment::Fin)]
}

/// Whatever the client, the backend and the payload: translated there and back, every sum is right.
fn every_packet_comes_out_exactly_right(way: Way) {
    let mut rig = rig(way);
    let inputs = (
        (address(way.v6), 1..=u16::MAX),
        (address(way.v6), 1..=u16::MAX),
        proptest::collection::vec(any::<u8>(), 0..64),
        segment(),
    );
    let rig = std::cell::RefCell::new(&mut rig);
    runner()
        .run(&inputs, |(client, host, payload, segment)| {
            let (client, host) = (SocketAddr::from(client), SocketAddr::from(host));
            let rig = &mut **rig.borrow_mut();
            let ours = [
                way.vip(1).ip(),
                way.vip(2).ip(),
                way.vip(3).ip(),
                way.node(),
            ];
            prop_assume!(!ours.contains(&host.ip()) && !ours.contains(&client.ip()));
            rig.backend(1, backend(way, host, backend_kind::HOST));
            let with = |frame: Frame| Frame {
                payload: payload.clone(),
                ..frame
            };
            let frame = with(way.segment(client, way.vip(1), segment));
            for hook in [Hook::Xdp, Hook::XdpGeneral, Hook::Ingress] {
                rig.expect(hook, &frame, hook.pass(), &frame.clone().to(host));
            }
            let reply = with(way.segment(host, client, segment));
            rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
            rig.evict(way, client, way.vip(1));
            rig.evict(way, host, client);
            Ok(())
        })
        .unwrap();
}

/// A byte of a frame set to another value, or the frame cut or drawn out.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, value)| Mutation::Set(at, value)),
        4 => (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => any::<prop::sample::Index>().prop_map(Mutation::Cut),
        1 => proptest::collection::vec(any::<u8>(), 1..40).prop_map(Mutation::Append),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    match mutation {
        Mutation::Set(at, value) => {
            // The headers are where it matters.
            let at = at.index(bytes.len().min(90));
            bytes[at] = *value;
        }
        Mutation::Flip(at, bit) => {
            let at = at.index(bytes.len().min(90));
            bytes[at] ^= 1 << bit;
        }
        Mutation::Cut(at) => {
            let keep = 14 + at.index(bytes.len() - 13);
            bytes.truncate(keep);
        }
        Mutation::Append(more) => bytes.extend(more),
    }
}

/// Something valid to start from.
fn seed(way: Way) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => frame(way).prop_map(|frame| frame.bytes()),
        1 => frame(way).prop_map(|frame| frame.as_ping()),
        1 => frame(way).prop_map(|frame| frame.fragment((0, true)).bytes()),
        1 => (frame(way), 0..9_u16, any::<bool>())
            .prop_map(move |(frame, at, more)| frame.later_fragment((at, more), way.proto())),
        4 => error(way),
        2 => (frame(way), 0..=3_u8).prop_map(move |(frame, who)| from_peer(way, who).around(&frame.bytes())),
    ]
}

/// What stands before a packet from a peer or, now and then, from somebody else.
fn from_peer(way: Way, who: u8) -> Shim {
    let src = if who == 0 {
        way.stranger()
    } else {
        way.backend(9)
    };
    Shim::new(src.ip(), way.node(), way.host())
}

/// An error about a packet that may have been translated.
fn error(way: Way) -> impl Strategy<Value = Vec<u8>> {
    let trouble = prop_oneof![
        Just(Trouble::Unreachable),
        (0..=2_000_u16).prop_map(Trouble::TooBig),
        Just(Trouble::TimeExceeded),
        Just(Trouble::ParameterProblem),
    ];
    let ends = prop_oneof![
        (1..=3_u8, 0..=9_u8).prop_map(move |(vip, n)| (way.vip(vip), way.client(n))),
        (30_000..30_005_u16, 1..=3_u8)
            .prop_map(move |(port, n)| { (SocketAddr::new(way.node(), port), way.backend(n)) }),
        (0..=9_u8).prop_map(move |n| (way.client(n), way.host())),
    ];
    let by = prop_oneof![Just(way.stranger()), Just(way.backend(2)), Just(way.host())];
    (ends, by, trouble, 0..80_usize).prop_map(move |((from, to), by, trouble, quoted)| {
        way.later(from, to).error(by.ip(), trouble, quoted).bytes()
    })
}

/// A valid frame of the kind that is balanced, with any number of hops left.
fn frame(way: Way) -> impl Strategy<Value = Frame> {
    let to = prop_oneof![
        4 => (1..=3_u8).prop_map(move |n| way.vip(n)),
        1 => Just(way.stranger()),
        1 => (30_000..30_005_u16).prop_map(move |port| SocketAddr::new(way.node(), port)),
        1 => Just(way.host()),
    ];
    let from = prop_oneof![
        (0..=9_u8).prop_map(move |n| way.client(n)),
        Just(way.host()),
        Just(way.backend(3))
    ];
    let ttl = prop_oneof![3 => Just(61), 1 => 0..=3_u8];
    let shape = (0..=2_usize, 0..=10_usize, 0..=3_u8, ttl);
    (from, to, segment(), shape).prop_map(
        move |(from, to, segment, (tags, options, extensions, ttl))| {
            let mut frame = way.segment(from, to, segment);
            frame.ttl = ttl;
            frame.tags = vec![7; tags];
            frame.options = vec![1; options * 4];
            let header = |more: usize| {
                let payload = vec![0; 6 + 8 * more];
                etherparse::Ipv6RawExtHeader::new_raw(etherparse::IpNumber::TCP, &payload).unwrap()
            };
            if way.v6 && extensions & 1 != 0 {
                frame.extensions.hop_by_hop_options = Some(header(1));
                frame.extensions.destination_options = Some(header(0));
            }
            if way.v6 && extensions & 2 != 0 {
                frame = frame.fragment((0, false));
            }
            frame
        },
    )
}

/// What etherparse takes for the destination.
fn destination(bytes: &[u8]) -> Option<IpAddr> {
    match LaxSlicedPacket::from_ethernet(bytes).ok()?.net? {
        LaxNetSlice::Ipv4(ip) => Some(ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => Some(ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => None,
    }
}

fn is_icmp(bytes: &[u8]) -> bool {
    let sliced = LaxSlicedPacket::from_ethernet(bytes).unwrap();
    matches!(
        sliced.transport,
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_))
    )
}

fn contains(bytes: &[u8], addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => bytes.windows(4).any(|w| w == addr.octets()),
        IpAddr::V6(addr) => bytes.windows(16).any(|w| w == addr.octets()),
    }
}

/// The same rig, which tells of every packet for its addresses with all bytes.
fn listened(way: Way) -> Rig {
    let mut rig = rig(way);
    for n in 1..=3 {
        rig.slot(way.vip(n).ip(), addr_flag::TRACED);
    }
    rig.slot(way.node(), addr_flag::TRACED);
    rig.trace(u32::MAX, 1, SNAP_MAX as u32);
    rig
}

fn no_mutated_packet_does_harm(way: Way) {
    do_no_harm(way, &rig(way));
}

fn no_mutated_packet_does_harm_while_somebody_listens(way: Way) {
    let mut rig = listened(way);
    do_no_harm(way, &rig);
    assert!(rig.told().len() > 100);
    assert!(rig.untold() > 0, "what nobody takes in time is counted");
}

fn do_no_harm(way: Way, rig: &Rig) {
    let net = Net::new();
    let overhead = from_peer(way, 1).len();
    let ours = [
        way.vip(1).ip(),
        way.vip(2).ip(),
        way.vip(3).ip(),
        way.node(),
    ];
    let inputs = (seed(way), proptest::collection::vec(mutation(), 0..6));
    let seen = std::cell::Cell::new([0_u32; 5]);
    runner()
        .run(&inputs, |(mut bytes, mutations)| {
            for mutation in &mutations {
                mutate(&mut bytes, mutation);
            }
            let out = rig.run_from(Hook::Xdp, &bytes, net.first);
            prop_assert!(
                [XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT].contains(&out.verdict),
                "XDP verdict {}",
                out.verdict
            );
            let taken = |out: &Out| out.bytes.len() + overhead == bytes.len();
            if taken(&out) && out.verdict == XDP_PASS {
                // Out of a peer's packet: for this node, and no longer for its agent.
                prop_assert!(destination(&bytes).is_none_or(|addr| addr == way.node()));
            } else if out.bytes.len() != bytes.len() {
                // An error of ours in its place.
                prop_assert_eq!(out.verdict, XDP_TX);
                prop_assert!(is_icmp(&out.bytes), "{:02x?}", out.bytes);
            }
            if out.bytes.len() == bytes.len() && out.verdict != XDP_DROP {
                // Where nothing changes from run to run, the shortcut changes nothing either.
                let [before, general, after] = [Hook::Xdp, Hook::XdpGeneral, Hook::Xdp]
                    .map(|hook| rig.run_from(hook, &bytes, net.first));
                if before == after {
                    prop_assert_eq!(general, after);
                }
            }
            let foreign = match destination(&bytes) {
                Some(addr) => !ours.contains(&addr),
                None => !ours.iter().any(|&addr| contains(&bytes, addr)),
            };
            if foreign {
                prop_assert_eq!(out.verdict, XDP_PASS);
                prop_assert_eq!(&out.bytes, &bytes);
            }
            let mut counts = seen.get();
            counts[out.verdict as usize] += 1;
            counts[0] += u32::from(foreign);
            seen.set(counts);
            let ip = if bytes[12..14] == [0x86, 0xdd] {
                40
            } else {
                20
            };
            if bytes.len() < 14 + ip {
                // The kernel makes no socket buffer of it.
                return Ok(());
            }
            for hook in [Hook::Ingress, Hook::Link, Hook::Egress] {
                let out = rig.run_from(hook, &bytes, net.first);
                prop_assert!(
                    [TC_OK, TC_SHOT, TC_REDIRECT].contains(&out.verdict),
                    "{hook:?} verdict {}",
                    out.verdict
                );
                prop_assert!(
                    out.bytes.len() == bytes.len() || hook == Hook::Ingress && taken(&out)
                );
                if foreign && hook == Hook::Ingress {
                    prop_assert_eq!(out.verdict, TC_OK);
                    prop_assert_eq!(&out.bytes, &bytes);
                }
            }
            Ok(())
        })
        .unwrap();
    let [foreign, dropped, passed, sent, _] = seen.get();
    assert!(
        foreign > 100 && dropped > 5 && passed > 100 && sent > 20,
        "every fate must have been met: {:?}",
        seen.get()
    );
    for reason in [
        Reason::IcmpUnknown,
        Reason::Fragment,
        Reason::TtlExceeded,
        Reason::NoSnatPort,
        Reason::PeerUnknown,
        Reason::PeerBackend,
        Reason::PeerMalformed,
    ] {
        assert!(rig.counter(reason) > 0, "{}", reason.as_str());
    }
}

each_way!(
    every_packet_comes_out_exactly_right,
    no_mutated_packet_does_harm,
    no_mutated_packet_does_harm_while_somebody_listens
);
