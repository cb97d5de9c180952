//! Our own zone on the wire.

use super::*;

#[tokio::test]
async fn a_name_is_answered_over_udp_and_tcp() {
    let dns = Dns::start(config(&[])).await;
    let a = query("ApP.marathon.l4lb.thisdcos.directory.", RecordType::A);
    let aaaa = query("app.marathon.DCLB.thisdcos.global.", RecordType::AAAA);
    for reply in [dns.udp(&a).await, dns.tcp(&[a]).await.remove(0)] {
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
        assert_eq!(
            records(&reply.answers),
            ["ApP.marathon.l4lb.thisdcos.directory. 5 IN A 11.0.0.1"]
        );
    }
    for reply in [dns.udp(&aaaa).await, dns.tcp(&[aaaa]).await.remove(0)] {
        assert_eq!(
            records(&reply.answers),
            ["app.marathon.DCLB.thisdcos.global. 5 IN AAAA fd01:c::1"]
        );
    }
}

#[tokio::test]
async fn what_is_not_there_comes_with_the_soa() {
    let dns = Dns::start(config(&[])).await;
    let soa =
        "l4lb.thisdcos.directory. 5 IN SOA ns.spartan. support.mesosphere.com. 1 60 180 86400 1";
    for (asked, record_type, code) in [
        (
            "no.marathon.l4lb.thisdcos.directory.",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
        (APP, RecordType::MX, ResponseCode::NoError),
        (
            "marathon.l4lb.thisdcos.directory.",
            RecordType::A,
            ResponseCode::NoError,
        ),
    ] {
        let reply = dns.udp(&query(asked, record_type)).await;
        assert_eq!(reply.metadata.response_code, code, "{asked}");
        assert_eq!(records(&reply.answers), [""; 0]);
        assert_eq!(records(&reply.authorities), [soa]);
    }
}

#[tokio::test]
async fn a_new_table_is_in_force_at_once() {
    let dns = Dns::start(config(&[])).await;
    let other = query("other.marathon.l4lb.thisdcos.directory.", RecordType::A);
    let before = dns.udp(&other).await;
    assert_eq!(before.metadata.response_code, ResponseCode::NXDomain);
    dns.table.store(Arc::new(table(&[("other.marathon", 9)])));
    let after = dns.udp(&other).await;
    assert_eq!(
        records(&after.answers),
        ["other.marathon.l4lb.thisdcos.directory. 5 IN A 11.0.0.9"]
    );
    let gone = dns.udp(&query(APP, RecordType::A)).await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn edns_is_answered_with_our_own_size() {
    let dns = Dns::start(config(&[])).await;
    let plain = query(APP, RecordType::A);
    assert!(dns.udp(&plain).await.edns.is_none());
    for (asked, given) in [(0, 512), (700, 700), (4096, 1232)] {
        let reply = dns.udp(&with_edns(plain.clone(), asked)).await;
        let edns = reply.edns.expect("an OPT record");
        assert_eq!((edns.max_payload(), edns.version()), (given, 0));
        assert_eq!(reply.answers.len(), 1);
    }
}

#[tokio::test]
async fn a_later_edns_version_is_bad() {
    let dns = Dns::start(config(&[])).await;
    let mut edns = Edns::new();
    edns.set_version(1).set_max_payload(1232);
    let mut asked = query(APP, RecordType::A);
    asked.set_edns(edns);
    let reply = dns.udp(&asked).await;
    // 16 is BADSIG, too, and that is how hickory reads it.
    let code = u16::from(reply.metadata.response_code);
    assert_eq!(code, u16::from(ResponseCode::BADVERS));
    assert_eq!(reply.edns.expect("an OPT record").version(), 0);
}

#[tokio::test]
async fn a_reply_too_long_for_udp_is_cut_and_whole_over_tcp() {
    let dns = Dns::start(config(&[])).await;
    let long = query(
        &format!("{}.l4lb.thisdcos.directory.", long_name()),
        RecordType::A,
    );
    let cut = dns.udp(&long).await;
    assert!(cut.metadata.truncation);
    assert_eq!(cut.answers.len(), 0);
    let whole = dns.tcp(std::slice::from_ref(&long)).await.remove(0);
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 1);
    let roomy = dns.udp(&with_edns(long, 1232)).await;
    assert!(!roomy.metadata.truncation);
    assert_eq!(roomy.answers.len(), 1);
}

#[tokio::test]
async fn one_connection_takes_several_queries() {
    let dns = Dns::start(config(&[])).await;
    let queries = [RecordType::A, RecordType::AAAA, RecordType::TXT].map(|t| query(APP, t));
    let replies = dns.tcp(&queries).await;
    let counts: Vec<_> = replies.iter().map(|reply| reply.answers.len()).collect();
    assert_eq!(counts, [1, 1, 0]);
    for (query, reply) in queries.iter().zip(&replies) {
        assert_eq!(query.metadata.id, reply.metadata.id);
    }
}

#[tokio::test]
async fn what_is_no_query_is_told_so_or_ignored() {
    let dns = Dns::start(config(&[])).await;
    let mut notify = query(APP, RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    let reply = dns.udp(&notify).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);

    let mut two = query(APP, RecordType::A);
    two.add_query(Query::query(name(APP), RecordType::AAAA));
    let reply = dns.udp(&two).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);

    let transfer = query("l4lb.thisdcos.directory.", RecordType::AXFR);
    let reply = dns.tcp(&[transfer]).await.remove(0);
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);

    let mut cut = query(APP, RecordType::A).to_vec().expect("a message");
    cut.truncate(20);
    let reply = dns.udp_bytes([127, 0, 0, 1].into(), &cut).await;
    let reply = Message::from_vec(&reply).expect("a message");
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);

    let mut stream = TcpStream::connect(dns.addr).await.expect("connected");
    write_framed(&mut stream, &cut).await;
    let reply = timeout(LONG, read_framed(&mut stream))
        .await
        .expect("in time");
    let reply = Message::from_vec(&reply.expect("a reply")).expect("a message");
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    let response = reply.to_vec().expect("a message");
    write_framed(&mut stream, &response).await;
    let end = timeout(LONG, read_framed(&mut stream))
        .await
        .expect("in time");
    assert!(end.is_err(), "a response is no query; the connection ends");
}

#[tokio::test]
async fn inherited_sockets_keep_what_came_while_nobody_served() {
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let waiting = query(APP, RecordType::A).to_vec().expect("a message");
    let mut usable = None;
    // A port that UDP found free may be taken on TCP.
    for _ in 0..50 {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let addr = udp.local_addr().expect("an address");
        client.send_to(&waiting, addr).await.expect("sent");
        let inherited = Inherited::of(vec![udp], Vec::new());
        usable = Sockets::open(&[addr], inherited).ok();
        if usable.is_some() {
            break;
        }
    }
    let sockets = usable.expect("a free port");
    let _dns = Dns::on(sockets, config(&[])).await;
    let mut bytes = [0; 512];
    let len = timeout(LONG, client.recv(&mut bytes))
        .await
        .expect("in time");
    let reply = Message::from_vec(&bytes[..len.expect("a reply")]).expect("a message");
    assert_eq!(reply.answers.len(), 1);
}

#[tokio::test]
async fn after_shutdown_the_addresses_are_free() {
    let dns = Dns::start(config(&[])).await;
    let addr = dns.addr;
    // A connection that is open does not hold them.
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    let served = dns.tcp(&[query(APP, RecordType::A)]).await;
    assert_eq!(served.len(), 1);
    dns.stop().await.expect("a clean end");
    let end = timeout(LONG, read_framed(&mut stream))
        .await
        .expect("in time");
    assert!(end.is_err());
    Sockets::bind(&[addr]).expect("free again");
}
