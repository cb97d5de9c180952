//! Sockets that are ended from outside.

use std::{
    io::{ErrorKind, Read},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
};

use super::*;
use crate::net::sockets::{Peering, end};

fn peering(socket: impl AsFd, proto: u8, peer: std::net::SocketAddr) -> Peering {
    Peering {
        cookie: rustix::net::sockopt::socket_cookie(socket).unwrap(),
        proto,
        peer,
    }
}

#[test]
fn a_connection_is_reset_and_the_one_beside_it_lives_on() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        in_a_namespace(move || async move {
            let listener = TcpListener::bind(at).unwrap();
            let to = listener.local_addr().unwrap();
            let mut gone = TcpStream::connect(to).unwrap();
            let mut kept = TcpStream::connect(to).unwrap();
            let wanted = peering(&gone, 6, to);
            let elsewhere = Peering {
                peer: "192.0.2.1:1".parse().unwrap(),
                ..peering(&kept, 6, to)
            };
            assert_eq!(end(&[wanted, elsewhere]).unwrap(), [wanted]);
            let error = gone.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
            kept.set_nonblocking(true).unwrap();
            let error = kept.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            assert_eq!(end(&[wanted]).unwrap(), []);
        });
    }
}

#[test]
fn the_next_call_of_a_connected_udp_socket_fails() {
    for (at, from) in [
        ("127.0.0.1:0", "[::]:0"),
        ("[::1]:0", "[::]:0"),
        ("127.0.0.1:0", "0.0.0.0:0"),
    ] {
        in_a_namespace(move || async move {
            let server = UdpSocket::bind(at).unwrap();
            let to = server.local_addr().unwrap();
            let client = UdpSocket::bind(from).unwrap();
            match (from, to) {
                ("[::]:0", std::net::SocketAddr::V4(v4)) => client
                    .connect((v4.ip().to_ipv6_mapped(), v4.port()))
                    .unwrap(),
                _ => client.connect(to).unwrap(),
            }
            let wanted = peering(&client, 17, to);
            assert_eq!(end(&[wanted]).unwrap(), [wanted]);
            let error = client.recv(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        });
    }
}
