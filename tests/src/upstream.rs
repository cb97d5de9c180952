//! A name server that others forward to: few names, whose answers are known.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    thread,
};

use anyhow::{Context, Result};

use crate::lab::Host;

/// Has one address, [`WWW_ADDRESS`].
pub const WWW: &str = "www.example.test";

/// Of [`WWW`].
pub const WWW_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// Has [`BIG_ADDRESSES`] addresses.
pub const BIG: &str = "big.example.test";

/// More than fit into any datagram that a resolver asks for.
pub const BIG_ADDRESSES: usize = 200;

/// Of the records.
const TTL: u32 = 60;
/// An address record whose owner is a pointer to the question, RFC 1035 section 4.1.4.
const RECORD: usize = 16;
/// Without EDNS, RFC 1035 section 4.2.1.
const MAX_DATAGRAM: usize = 512;
const HEADER: usize = 12;

/// Serves `at` in the host over UDP and TCP, one client after the other, for as long as the test runs.
///
/// # Errors
///
/// The host's network cannot be entered, or the port is taken.
pub fn serve(host: &Host, at: (Ipv4Addr, u16)) -> Result<()> {
    let open = || Ok::<_, std::io::Error>((UdpSocket::bind(at)?, TcpListener::bind(at)?));
    let (udp, tcp) = host.enter(open)?.context("cannot serve DNS")?;
    thread::spawn(move || {
        let mut query = [0; MAX_DATAGRAM];
        while let Ok((length, client)) = udp.recv_from(&mut query) {
            if let Some(reply) = reply(&query[..length], MAX_DATAGRAM) {
                // A client that is gone needs no answer.
                let _ = udp.send_to(&reply, client);
            }
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { return };
            // Ends when the client closes.
            thread::spawn(move || while converse(&mut stream).is_some() {});
        }
    });
    Ok(())
}

/// One query over TCP, each message after its length.
fn converse(stream: &mut (impl Read + Write)) -> Option<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut query = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut query).ok()?;
    let reply = reply(&query, usize::from(u16::MAX))?;
    let length = u16::try_from(reply.len()).ok()?;
    stream.write_all(&length.to_be_bytes()).ok()?;
    stream.write_all(&reply).ok()
}

/// Without records and with TC if they do not fit into `limit`.
fn reply(query: &[u8], limit: usize) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let kind = u16::from_be_bytes([*query.get(end - 4)?, *query.get(end - 3)?]);
    let addresses: Vec<Ipv4Addr> = match name.as_str() {
        _ if kind != 1 => Vec::new(),
        WWW => vec![WWW_ADDRESS],
        BIG => (0..BIG_ADDRESSES)
            .map(|number| Ipv4Addr::from(0x0a00_0000 + number as u32))
            .collect(),
        _ => Vec::new(),
    };
    let missing = ![WWW, BIG].contains(&name.as_str());
    let truncated = end + addresses.len() * RECORD > limit;
    let count = if truncated { 0 } else { addresses.len() };
    let mut reply = query[..2].to_vec();
    // QR, RD as asked, TC; RA, NXDOMAIN.
    reply.push(0x80 | (query[2] & 1) | if truncated { 2 } else { 0 });
    reply.push(0x80 | if missing { 3 } else { 0 });
    for section in [1, count, 0, 0] {
        reply.extend(u16::try_from(section).ok()?.to_be_bytes());
    }
    reply.extend(&query[HEADER..end]);
    for address in &addresses[..count] {
        // Name, type A, class IN.
        reply.extend([0xc0, HEADER as u8, 0, 1, 0, 1]);
        reply.extend(TTL.to_be_bytes());
        reply.extend([0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

/// The name that is asked for in lower case, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            // Type and class.
            return (at + 4 <= query.len()).then(|| (labels.join("."), at + 4));
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}
