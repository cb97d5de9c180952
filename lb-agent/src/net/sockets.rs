//! Ends sockets of this host whose peer is gone, in the network namespace of the thread that asks.
//!
//! By `SOCK_DESTROY` of sock_diag(7) (`net/core/sock_diag.c`, kernel 4.5, `CONFIG_INET_DIAG_DESTROY`): a TCP
//! connection is reset, a connected UDP socket's next call fails with `ECONNABORTED`.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    constants::{AF_INET, AF_INET6},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

/// Room for one datagram of a dump; the kernel fills at most 32 KiB.
const ROOM: usize = 1 << 16;

/// A socket and whom it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peering {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// IP protocol number.
    pub proto: u8,
    /// Its peer.
    pub peer: SocketAddr,
}

/// Ends those of the sockets that are connected to this peer in this namespace, and gives them.
///
/// # Errors
///
/// When the kernel does not list its sockets, or will not end one although it is there.
pub fn end(wanted: &[Peering]) -> io::Result<Vec<Peering>> {
    let mut ended = Vec::new();
    if wanted.is_empty() {
        return Ok(ended);
    }
    let socket = Diag::open()?;
    for proto in [libc::IPPROTO_TCP as u8, libc::IPPROTO_UDP as u8] {
        let sought: HashMap<u64, &Peering> = wanted
            .iter()
            .filter(|one| one.proto == proto)
            .map(|one| (one.cookie, one))
            .collect();
        if sought.is_empty() {
            continue;
        }
        for family in [AF_INET, AF_INET6] {
            for id in socket.list(family, proto)? {
                let peer =
                    SocketAddr::new(id.destination_address.to_canonical(), id.destination_port);
                let Some(one) = sought.get(&cookie(&id)) else {
                    continue;
                };
                if one.peer == peer && socket.destroy(family, proto, id)? {
                    ended.push(**one);
                }
            }
        }
    }
    Ok(ended)
}

/// Two words, the lower one first, each in the host's byte order (`sock_diag_save_cookie`).
fn cookie(id: &SocketId) -> u64 {
    let [a, b, c, d, e, f, g, h] = id.cookie;
    let (low, high) = (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    );
    u64::from(low) | u64::from(high) << 32
}

/// A sock_diag socket.
struct Diag(Socket);

impl Diag {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// The sockets of a family and protocol that have a peer.
    fn list(&self, family: u8, proto: u8) -> io::Result<Vec<SocketId>> {
        let nobody = SocketId {
            destination_address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            source_address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ..SocketId::new_v6()
        };
        let request = InetRequest {
            family,
            protocol: proto,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::ESTABLISHED
                | StateFlags::SYN_SENT
                | StateFlags::CLOSE_WAIT
                | StateFlags::FIN_WAIT1
                | StateFlags::FIN_WAIT2
                | StateFlags::LAST_ACK
                | StateFlags::CLOSING,
            socket_id: nobody,
        };
        self.send(
            NLM_F_REQUEST | NLM_F_DUMP,
            SockDiagMessage::InetRequest(request),
        )?;
        let mut found = Vec::new();
        self.answers(|message: NetlinkPayload<SockDiagMessage>| match message {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(one)) => {
                found.push(one.header.socket_id);
                Ok(true)
            }
            NetlinkPayload::Error(error) => Err(error.to_io()),
            NetlinkPayload::Done(_) => Ok(false),
            _ => Ok(true),
        })?;
        Ok(found)
    }

    /// Whether it was still there.
    fn destroy(&self, family: u8, proto: u8, id: SocketId) -> io::Result<bool> {
        let request = InetRequest {
            family,
            protocol: proto,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::empty(),
            socket_id: id,
        };
        let request = SockDiagDestroy::new(SockDiagMessage::InetRequest(request));
        self.send(NLM_F_REQUEST | NLM_F_ACK, request)?;
        let mut done = false;
        self.answers(|message: NetlinkPayload<SockDiagMessage>| match message {
            NetlinkPayload::Error(answer) if answer.code.is_none() => {
                done = true;
                Ok(false)
            }
            NetlinkPayload::Error(error) => match error.to_io() {
                gone if gone.raw_os_error() == Some(libc::ENOENT) => Ok(false),
                error => Err(error),
            },
            _ => Ok(true),
        })?;
        Ok(done)
    }

    fn send<M: NetlinkSerializable>(&self, flags: u16, message: M) -> io::Result<()>
    where
        NetlinkPayload<M>: From<M>,
    {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.0.send(&bytes, 0).map(drop)
    }

    /// Hands over answers until `more` says that there are no more.
    fn answers<M: NetlinkDeserializable>(
        &self,
        mut more: impl FnMut(NetlinkPayload<M>) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut room = vec![0; ROOM];
        loop {
            let size = self.0.recv(&mut &mut room[..], 0)?;
            let mut rest = room.get(..size).unwrap_or_default();
            while !rest.is_empty() {
                let packet = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
                // Messages begin at multiples of 4 bytes, netlink(7).
                let length = (packet.header.length as usize).next_multiple_of(4);
                if !more(packet.payload)? {
                    return Ok(());
                }
                if length == 0 {
                    break;
                }
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}
