//! What routers say of the packets that hold clients' packets: it is the client that hears of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpFragOffset, Ipv4Header};
use lb_common::{Reason, SLOTS_SMALL, backend_kind, service_mode};
use lb_tests::{each_way, packet::*};

const ETH_LEN: usize = 14;
/// What a router says that the way takes: less than the outer packets of this test, and no less than IPv6 has.
const MTU: u16 = 1_300;
const PAYLOAD: usize = 1_300;
const MODES: [u8; 2] = [service_mode::DSR_GENEVE, service_mode::DSR_IPIP];

/// A flow of client 1, and a packet of it as it was sent to backend 1's host.
struct Given {
    rig: Rig,
    net: Net,
    way: Way,
    /// From the outer IP header on.
    sent: Vec<u8>,
    /// Bytes of that before the client's packet.
    before: usize,
}

fn given(way: Way, mode: u8) -> Given {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.shape(way, SLOTS_SMALL, |service| service.mode = mode);
    let net = Net::new();
    if mode == service_mode::DSR_GENEVE {
        rig.peer(1, way.backend(1).ip(), net.first, 0);
    }
    let send = |frame: &Frame| {
        let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
        assert_eq!(out.verdict, XDP_TX);
        out.bytes[ETH_LEN..].to_vec()
    };
    send(&way.opening(way.client(1), way.vip(1)));
    let frame = long(way.later(way.client(1), way.vip(1)));
    let sent = send(&frame);
    let before = sent.len() - (frame.bytes().len() - ETH_LEN);
    Given {
        rig,
        net,
        way,
        sent,
        before,
    }
}

fn long(frame: Frame) -> Frame {
    Frame {
        payload: vec![7; PAYLOAD],
        ..frame
    }
}

// === impl Given ===

impl Given {
    /// What a router says to the node about an outer packet.
    fn error(&self, trouble: Trouble, quoted: &[u8]) -> Error {
        let way = self.way;
        let node = SocketAddr::new(way.node(), 0);
        Error {
            carrier: Frame::new(way.stranger(), node, Transport::Udp),
            trouble,
            quoted: quoted.to_vec(),
            by_node: false,
        }
    }

    /// What the client is told when so many bytes of the outer packet were quoted.
    fn told(&self, trouble: Trouble, quoted: usize) -> Error {
        let way = self.way;
        let most = if way.v6 { 1_280 - 48 } else { 576 - 28 };
        let inner = &self.sent[self.before..quoted];
        let whole = inner.len().min(most) & !3;
        let mut carrier = Frame::new(way.vip(1), way.client(1), Transport::Udp);
        carrier.macs = (carrier.macs.1, carrier.macs.0);
        carrier.ttl = 64;
        Error {
            carrier,
            trouble,
            quoted: inner[..whole].to_vec(),
            by_node: true,
        }
    }

    /// From the least that shows whose packet it was to all of it.
    fn quotes(&self) -> [usize; 4] {
        let least = self.before + if self.way.v6 { 48 } else { 28 };
        [least, least + 13, 548, self.sent.len()]
    }

    #[track_caller]
    fn expect_untouched(&self, error: &[u8]) {
        for hook in [Hook::Xdp, Hook::Ingress] {
            self.rig
                .run_from(hook, error, self.net.first)
                .must_be_bytes(hook.pass(), error);
        }
    }
}

each_way!(
    a_client_is_told_what_the_way_to_its_backend_takes,
    a_client_is_told_that_the_host_of_its_backend_cannot_be_reached,
    an_error_about_the_packet_of_no_flow_is_left_to_the_stack_and_counted,
    an_error_about_a_packet_to_another_host_is_left_to_the_stack_and_counted,
    an_error_about_what_is_no_packet_of_ours_passes_untouched,
    an_error_about_a_part_of_an_outer_packet_passes_untouched,
    an_error_that_makes_no_sense_passes_untouched,
    a_device_that_summed_the_error_is_not_contradicted
);

fn a_client_is_told_what_the_way_to_its_backend_takes(way: Way) {
    for mode in MODES {
        let given = given(way, mode);
        let mut wanted = 0;
        for quoted in given.quotes() {
            let error = given.error(Trouble::TooBig(MTU), &given.sent[..quoted]);
            let bytes = error.bytes();
            // The tc twin has the rest of it.
            given
                .rig
                .run_from(Hook::Xdp, &bytes, given.net.first)
                .must_be_bytes(XDP_PASS, &bytes);
            let told = given.told(Trouble::TooBig(MTU - given.before as u16), quoted);
            given
                .rig
                .run_from(Hook::Ingress, &bytes, given.net.first)
                .must_be_bytes(TC_REDIRECT, &told.bytes());
            wanted += 1;
            assert_eq!(given.rig.counters(), [(Reason::TooBig, wanted)]);
        }
    }
}

fn a_client_is_told_that_the_host_of_its_backend_cannot_be_reached(way: Way) {
    for mode in MODES {
        let given = given(way, mode);
        let mut wanted = 0;
        for trouble in [
            Trouble::Unreachable,
            Trouble::HostUnreachable,
            Trouble::TimeExceeded,
        ] {
            for quoted in given.quotes() {
                let error = given.error(trouble, &given.sent[..quoted]);
                let told = given.told(Trouble::HostUnreachable, quoted);
                given
                    .rig
                    .run_from(Hook::Ingress, &error.bytes(), given.net.first)
                    .must_be_bytes(TC_REDIRECT, &told.bytes());
                wanted += 1;
                assert_eq!(given.rig.counters(), [(Reason::OuterUnreachable, wanted)]);
            }
        }
    }
}

/// As a packet of the flow was sent inside another one, from and to these hosts.
fn inside(way: Way, mode: u8, frame: &Frame, src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let sent = if mode == service_mode::DSR_GENEVE {
        Shim::new(src, dst, way.backend(1)).around(&frame.bytes())
    } else {
        frame.inside(src, dst)
    };
    sent[ETH_LEN..].to_vec()
}

fn an_error_about_the_packet_of_no_flow_is_left_to_the_stack_and_counted(way: Way) {
    for mode in MODES {
        let given = given(way, mode);
        let mut wanted = 0;
        for frame in [
            way.later(way.client(2), way.vip(1)),
            way.later(way.client(1), way.vip(2)),
            // What is told of a flow is told by its whole packets.
            way.later(way.client(1), way.vip(1)).fragment((0, true)),
            way.later(way.client(1), way.vip(1)).fragment((5, false)),
        ] {
            let sent = inside(way, mode, &long(frame), way.node(), way.backend(1).ip());
            given.expect_untouched(&given.error(Trouble::TooBig(MTU), &sent).bytes());
            wanted += 1;
            assert_eq!(given.rig.counters(), [(Reason::IcmpUnknown, wanted)]);
        }
    }
}

fn an_error_about_a_packet_to_another_host_is_left_to_the_stack_and_counted(way: Way) {
    let frame = long(way.later(way.client(1), way.vip(1)));
    for (mode, by) in [
        (MODES[0], MODES[0]),
        (MODES[1], MODES[1]),
        (MODES[0], MODES[1]),
    ] {
        let given = given(way, mode);
        // By the other way, the host is right, and the way is not.
        let to = way.backend(if mode == by { 2 } else { 1 }).ip();
        let sent = inside(way, by, &frame, way.node(), to);
        given.expect_untouched(&given.error(Trouble::TooBig(MTU), &sent).bytes());
        assert_eq!(given.rig.counters(), [(Reason::IcmpUnknown, 1)]);
    }
}

fn an_error_about_what_is_no_packet_of_ours_passes_untouched(way: Way) {
    let frame = long(way.later(way.client(1), way.vip(1)));
    let (node, to) = (way.node(), way.backend(1).ip());
    for mode in MODES {
        let given = given(way, mode);
        let foreign = inside(way, mode, &frame, way.backend(3).ip(), to);
        given.expect_untouched(&given.error(Trouble::TooBig(MTU), &foreign).bytes());
        // Not even the outer headers are quoted.
        let cut = &given.sent[..given.before - 4];
        given.expect_untouched(&given.error(Trouble::TooBig(MTU), cut).bytes());
        assert_eq!(
            given.rig.counter(Reason::TooBig) + given.rig.counter(Reason::OuterUnreachable),
            0
        );
    }
    let given = given(way, service_mode::DSR_GENEVE);
    let right = Shim::new(node, to, way.backend(1));
    for shim in [
        Shim {
            vni: 7,
            ..right.clone()
        },
        Shim {
            option: 0xff4d,
            ..right.clone()
        },
        Shim {
            control: 0,
            ..right
        },
    ] {
        let sent = shim.around(&frame.bytes());
        given.expect_untouched(&given.error(Trouble::TooBig(MTU), &sent[ETH_LEN..]).bytes());
    }
    assert_eq!(given.rig.counters(), []);
}

/// As a router would have cut a packet that begins with an IP header; `offset`: in units of 8 bytes.
fn part(way: Way, sent: &[u8], offset: u16) -> Vec<u8> {
    if !way.v6 {
        let (mut header, rest) = Ipv4Header::from_slice(sent).unwrap();
        header.dont_fragment = false;
        header.more_fragments = true;
        header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        header.header_checksum = header.calc_header_checksum();
        return [&header.to_bytes()[..], rest].concat();
    }
    let mut header = sent[..40].to_vec();
    let len = u16::from_be_bytes([header[4], header[5]]) + 8;
    header[4..6].copy_from_slice(&len.to_be_bytes());
    // RFC 8200 section 4.5.
    let next = std::mem::replace(&mut header[6], 44);
    let [high, low] = (offset << 3 | 1).to_be_bytes();
    [&header[..], &[next, 0, high, low, 0, 0, 0, 7], &sent[40..]].concat()
}

fn an_error_about_a_part_of_an_outer_packet_passes_untouched(way: Way) {
    // Outer packets are not to be cut, so no router says this of one of ours.
    for mode in MODES {
        let given = given(way, mode);
        for offset in [0, 5] {
            let cut = part(way, &given.sent, offset);
            for trouble in [Trouble::TooBig(MTU), Trouble::HostUnreachable] {
                given.expect_untouched(&given.error(trouble, &cut).bytes());
            }
        }
        assert_eq!(given.rig.counters(), []);
    }
}

fn an_error_that_makes_no_sense_passes_untouched(way: Way) {
    for mode in MODES {
        let given = given(way, mode);
        let least = if way.v6 { 1_280 } else { 68 };
        for mtu in [0, least - 1, given.sent.len() as u16, u16::MAX] {
            let error = given.error(Trouble::TooBig(mtu), &given.sent);
            given.expect_untouched(&error.bytes());
        }
        for trouble in [Trouble::ParameterProblem, Trouble::Other] {
            given.expect_untouched(&given.error(trouble, &given.sent).bytes());
        }
        assert_eq!(given.rig.counters(), []);
    }
}

fn a_device_that_summed_the_error_is_not_contradicted(way: Way) {
    for mode in MODES {
        let given = given(way, mode);
        // Passed on to the end: the kernel forgets the sum of a packet that is cut (`__skb_trim_rcsum`).
        let [least, ..] = given.quotes();
        for quoted in [least, least + 16, 548] {
            let error = given.error(Trouble::TooBig(MTU), &given.sent[..quoted]);
            let told = given.told(Trouble::TooBig(MTU - given.before as u16), quoted);
            let out = given.rig.run_summed_bytes(Hook::Ingress, &error.bytes());
            out.expect("the sum holds")
                .must_be_bytes(TC_REDIRECT, &told.bytes());
        }
    }
}
