//! DNS as a client sees it: a live server on loopback, and made-up upstreams.

mod below;
mod bounds;
mod domains;
mod forwarding;
mod wire;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use hickory_server::proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata},
    serialize::binary::{BinDecodable, BinDecoder},
};
use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{catalog::NameAddresses, vip::VipName};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(10);
const APP: &str = "app.marathon.l4lb.thisdcos.directory.";

/// A server that ends with the test.
struct Dns {
    addr: SocketAddr,
    stats: Arc<Stats>,
    table: Arc<ArcSwap<Table>>,
    shutdown: Option<oneshot::Sender<()>>,
    serving: JoinHandle<anyhow::Result<()>>,
}

/// An upstream that answers by a function of the query and counts what it was asked.
struct Upstream {
    addr: SocketAddr,
    asked: Arc<AtomicUsize>,
}

// === impl Dns ===

impl Dns {
    /// `app.marathon` with both addresses, and a name so long that its answer takes more than 512 bytes.
    async fn start(config: DnsConfig) -> Self {
        Self::on(bind(), config).await
    }

    async fn on(sockets: Sockets, config: DnsConfig) -> Self {
        let addr = sockets.addresses()[0];
        let names = [("app.marathon", 1), (&long_name(), 2)];
        let table = Arc::new(ArcSwap::from_pointee(table(&names)));
        let stats = config.stats.clone();
        let (shutdown, ended) = oneshot::channel();
        let ended = async { drop(ended.await) };
        let serving = tokio::spawn(serve(sockets, config, table.clone(), ended));
        Self {
            addr,
            stats,
            table,
            shutdown: Some(shutdown),
            serving,
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.shutdown.take());
        self.serving.await.expect("it does not panic")
    }

    async fn udp(&self, query: &Message) -> Message {
        self.udp_from([127, 0, 0, 1].into(), query).await
    }

    async fn udp_from(&self, client: Ipv4Addr, query: &Message) -> Message {
        let bytes = self
            .udp_bytes(client, &query.to_vec().expect("a message"))
            .await;
        let mut decoder = BinDecoder::new(&bytes);
        let reply = Message::read(&mut decoder).expect("a whole message");
        assert_eq!(decoder.index(), bytes.len(), "nothing trails");
        assert_eq!(reply.metadata.id, query.metadata.id);
        reply
    }

    async fn udp_bytes(&self, client: Ipv4Addr, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind((client, 0)).await.expect("a socket");
        socket.send_to(query, self.addr).await.expect("sent");
        let mut bytes = vec![0; 65_535];
        let received = timeout(LONG, socket.recv_from(&mut bytes)).await;
        let (len, from) = received.expect("a reply in time").expect("a reply");
        assert_eq!(from, self.addr);
        bytes.truncate(len);
        bytes
    }

    async fn tcp(&self, queries: &[Message]) -> Vec<Message> {
        let mut stream = TcpStream::connect(self.addr).await.expect("connected");
        for query in queries {
            write_framed(&mut stream, &query.to_vec().expect("a message")).await;
        }
        let mut replies = Vec::new();
        for _ in queries {
            let reply = timeout(LONG, read_framed(&mut stream))
                .await
                .expect("in time");
            replies.push(Message::from_vec(&reply.expect("a reply")).expect("a message"));
        }
        replies
    }
}

fn bind() -> Sockets {
    // A port that UDP found free may be taken on TCP.
    (0..50)
        .find_map(|_| Sockets::bind(&[([127, 0, 0, 1], 0).into()]).ok())
        .expect("a free port")
}

fn table(names: &[(&str, u8)]) -> Table {
    let names = names.iter().map(|(name, last)| {
        let name = VipName::from_canonical(name).expect("a canonical name");
        let v6 = format!("fd01:c::{last}").parse().expect("an address");
        let addresses = NameAddresses {
            v4: Some([11, 0, 0, *last].into()),
            v6: Some(v6),
        };
        (name, addresses)
    });
    let zones = Zones::new(None, &[]).expect("zones");
    Table::new(&zones, &names.collect::<BTreeMap<_, _>>(), HashMap::new())
}

fn long_name() -> String {
    let label = "a".repeat(63);
    format!("{label}.{label}.{label}.{}.m", "b".repeat(30))
}

fn config(upstreams: &[SocketAddr]) -> DnsConfig {
    DnsConfig {
        upstreams: upstreams.to_vec(),
        resolv_conf: "/nonexistent".into(),
        ..DnsConfig::default()
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a DNS name")
}

fn query(text: &str, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), record_type));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

fn records(records: &[Record]) -> Vec<String> {
    records.iter().map(ToString::to_string).collect()
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) {
    let len = u16::try_from(message.len()).expect("a DNS message");
    let framed = [&len.to_be_bytes(), message].concat();
    stream.write_all(&framed).await.expect("sent");
}

async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; len.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Sockets of both kinds at one port: what UDP found free may be taken on TCP.
async fn pair() -> (UdpSocket, TcpListener) {
    for _ in 0..50 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let addr = udp.local_addr().expect("an address");
        if let Ok(tcp) = TcpListener::bind(addr).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free");
}

// === impl Upstream ===

impl Upstream {
    /// Gives the sections of `answer` for every query; over UDP cut to nothing with TC above 512 bytes.
    async fn start(answer: impl Fn(&Query) -> Message + Send + Sync + 'static) -> Self {
        let (udp, tcp) = pair().await;
        let addr = udp.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let respond = {
            let asked = asked.clone();
            Arc::new(move |bytes: &[u8]| {
                asked.fetch_add(1, Ordering::SeqCst);
                let query = Message::from_vec(bytes).expect("a query");
                let mut reply = answer(&query.queries[0]);
                reply.metadata.id = query.metadata.id;
                reply.metadata.message_type = MessageType::Response;
                reply.metadata.recursion_available = true;
                reply.add_query(query.queries[0].clone());
                reply
            })
        };
        let over_udp = respond.clone();
        tokio::spawn(async move {
            let mut bytes = [0; 4096];
            while let Ok((len, client)) = udp.recv_from(&mut bytes).await {
                let mut reply = over_udp(&bytes[..len]);
                if reply.to_vec().expect("a message").len() > 512 {
                    reply = reply.truncate();
                }
                let reply = reply.to_vec().expect("a message");
                udp.send_to(&reply, client).await.expect("sent");
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                while let Ok(bytes) = read_framed(&mut stream).await {
                    let reply = respond(&bytes).to_vec().expect("a message");
                    write_framed(&mut stream, &reply).await;
                }
            }
        });
        Self { addr, asked }
    }

    /// Takes queries and says nothing.
    async fn dead() -> (SocketAddr, UdpSocket) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        (socket.local_addr().expect("an address"), socket)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn reply(code: ResponseCode) -> Message {
    let mut reply = Message::response(0, OpCode::Query);
    reply.metadata.response_code = code;
    reply
}

/// An upstream's answer of one A record.
fn address(query: &Query, addr: [u8; 4]) -> Message {
    let mut reply = reply(ResponseCode::NoError);
    let rdata = RData::A(rdata::A(addr.into()));
    reply.add_answer(Record::from_rdata(query.name().clone(), 60, rdata));
    reply
}
