//! Random packets: valid ones, which must come out exactly right, and mutated ones, which must do no harm.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use lb_common::{
    Reason, SLOTS_SMALL, SNAP_MAX, addr_flag, backend_kind, service_flag, service_mode,
};
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
/// Ways by which the answers do not come back.
const DIRECT: [u8; 3] = [
    service_mode::DSR_IPIP,
    service_mode::DSR_L2,
    service_mode::DSR_GENEVE,
];
/// One of each kind, and one of each of those ways.
const VIPS: u8 = 6;

/// One service of each kind, on VIPs 1 to 3, and with direct server return on 4 to 6, open to every source.
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
    for (n, mode) in (4..).zip(DIRECT) {
        let id = u32::from(n);
        rig.backend(id, backend(way, way.backend(n), backend_kind::NET));
        let table = repeated(&[id], SLOTS_SMALL);
        rig.service(way, way.vip(n), id, service_flag::EXTERNAL, &table);
        rig.mode(way, way.vip(n), id, service_flag::EXTERNAL, mode);
    }
    rig.peer(6, way.backend(8).ip(), 0, 0);
    rig.sender(way.backend(9).ip(), 1);
    rig.local(1, way.host(), 1);
    rig
}

/// The addresses that the programs look at.
fn ours(way: Way) -> Vec<IpAddr> {
    let vips = (1..=VIPS).map(|n| way.vip(n).ip());
    vips.chain([way.node()]).collect()
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
            let ours = ours(way);
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
        1 => outer_error(way),
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

/// An error about a packet that this node may have sent inside another one.
fn outer_error(way: Way) -> impl Strategy<Value = Vec<u8>> {
    let trouble = prop_oneof![
        Just(Trouble::Unreachable),
        (0..=2_000_u16).prop_map(Trouble::TooBig),
    ];
    (frame(way), trouble, any::<bool>()).prop_map(move |(frame, trouble, geneve)| {
        let to = way.backend(if geneve { 8 } else { 4 }).ip();
        let sent = if geneve {
            Shim::new(way.node(), to, way.backend(6)).around(&frame.bytes())
        } else {
            frame.inside(way.node(), to)
        };
        let node = SocketAddr::new(way.node(), 0);
        let error = Error {
            carrier: Frame::new(way.stranger(), node, Transport::Udp),
            trouble,
            quoted: sent[14..].to_vec(),
            by_node: false,
        };
        error.bytes()
    })
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
        (1..=VIPS, 0..=9_u8).prop_map(move |(vip, n)| (way.vip(vip), way.client(n))),
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
        4 => (1..=VIPS).prop_map(move |n| way.vip(n)),
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

/// What etherparse takes for the destination, which it reads of no packet that is cut short within its header.
fn destination(bytes: &[u8]) -> Option<IpAddr> {
    match LaxSlicedPacket::from_ethernet(bytes).ok()?.net? {
        LaxNetSlice::Ipv4(ip) => Some(ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => Some(ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => None,
    }
}

/// What stands in the place of the destination of a packet without tags.
fn written_destination(bytes: &[u8]) -> Option<IpAddr> {
    if bytes[12..14] == [0x86, 0xdd] {
        let addr: [u8; 16] = bytes.get(38..54)?.try_into().ok()?;
        return Some(addr.into());
    }
    let addr: [u8; 4] = bytes.get(30..34)?.try_into().ok()?;
    Some(addr.into())
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
    for addr in ours(way) {
        rig.slot(addr, addr_flag::TRACED);
    }
    rig.trace(u32::MAX, 1, SNAP_MAX as u32);
    rig
}

/// By which of [`DIRECT`] a packet to a VIP went out, and as what, without what was put before it.
fn sent_directly(way: Way, hook: Hook, bytes: &[u8], out: &Out) -> Option<(usize, Vec<u8>)> {
    let vip = written_destination(bytes)?;
    let by = (0..DIRECT.len()).find(|by| way.vip(4 + *by as u8).ip() == vip)?;
    let outer = match DIRECT[by] {
        service_mode::DSR_IPIP if way.v6 => 40,
        service_mode::DSR_IPIP => 20,
        service_mode::DSR_L2 => 0,
        _ => from_peer(way, 1).len(),
    };
    let to = match DIRECT[by] {
        service_mode::DSR_GENEVE => neighbour_mac(8),
        _ => neighbour_mac(4 + by as u8),
    };
    let sent = match hook {
        Hook::Xdp => out.verdict == XDP_TX && out.bytes[..6] == to,
        // The Ethernet header is the kernel's to write.
        _ => out.verdict == TC_REDIRECT,
    };
    let inner = || (by, out.bytes[14 + outer..].to_vec());
    (sent && out.bytes.len() == bytes.len() + outer).then(inner)
}

/// What is to go out by one of [`DIRECT`]: the packet as it is, but by Geneve as a router sends it on.
fn as_sent(way: Way, by: usize, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if DIRECT[by] != service_mode::DSR_GENEVE {
        return packet;
    }
    if way.v6 {
        packet[7] -= 1;
        return packet;
    }
    packet[8] -= 1;
    // RFC 1624, equation 3: the word of which the hop is the upper byte is less by 0x100.
    let sum = u32::from(u16::from_be_bytes([packet[10], packet[11]])) + 0x100;
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(sum as u16).to_be_bytes());
    packet
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
    let ours = ours(way);
    let inputs = (seed(way), proptest::collection::vec(mutation(), 0..6));
    let seen = std::cell::Cell::new([0_u32; 5]);
    let carried = std::cell::Cell::new([0_u32; 3]);
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
            let direct = sent_directly(way, Hook::Xdp, &bytes, &out);
            if let Some((by, inner)) = &direct {
                let given = as_sent(way, *by, &bytes[14..]);
                prop_assert_eq!(inner, &given);
                let mut counts = carried.get();
                counts[*by] += 1;
                carried.set(counts);
            } else if taken(&out) && out.verdict == XDP_PASS {
                // Out of a peer's packet: for this node, and no longer for its agent.
                prop_assert!(destination(&bytes).is_none_or(|addr| addr == way.node()));
            } else if out.bytes.len() != bytes.len() {
                // An error of ours in its place.
                prop_assert_eq!(out.verdict, XDP_TX);
                prop_assert!(is_icmp(&out.bytes), "{:02x?}", out.bytes);
            } else if out.verdict == XDP_PASS && out.bytes != bytes {
                // What goes up the stack otherwise than it came is for a socket here.
                prop_assert!(destination(&out.bytes).is_none_or(|addr| addr == way.node()));
            }
            let whole = out.bytes.len() == bytes.len() || direct.is_some();
            if whole && out.verdict != XDP_DROP {
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
                let direct = (hook == Hook::Ingress)
                    .then(|| sent_directly(way, hook, &bytes, &out))
                    .flatten();
                if let Some((by, inner)) = &direct {
                    prop_assert_eq!(inner, &as_sent(way, *by, &bytes[14..]));
                }
                // An error of ours in its place, or none of what another one quoted.
                let answered = hook == Hook::Ingress
                    && (out.verdict == TC_SHOT
                        || out.verdict == TC_REDIRECT && is_icmp(&out.bytes));
                prop_assert!(
                    out.bytes.len() == bytes.len()
                        || hook == Hook::Ingress && taken(&out)
                        || direct.is_some()
                        || answered
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
    let carried = carried.get();
    assert!(
        carried.iter().all(|count| *count > 5),
        "{carried:?} packets went by direct return"
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
