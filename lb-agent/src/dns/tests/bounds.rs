//! Who gets nothing, and what a dead upstream costs.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::*;

#[tokio::test]
async fn strangers_are_refused_answers_and_forwards() {
    let upstream = Upstream::start(|query| address(query, [192, 0, 2, 1])).await;
    let allowed: IpNet = "127.0.0.1/32".parse().expect("a prefix");
    let dns = Dns::start(DnsConfig {
        allow: Arc::new(ArcSwap::from_pointee(vec![allowed])),
        ..config(&[upstream.addr])
    })
    .await;
    let stranger = Ipv4Addr::new(127, 0, 0, 2);
    for asked in [APP, "www.example.com."] {
        let reply = dns.udp_from(stranger, &query(asked, RecordType::A)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
        assert_eq!((reply.answers.len(), reply.authorities.len()), (0, 0));
    }
    assert_eq!(upstream.asked(), 0);
    assert_eq!(dns.stats.refused.load(Ordering::Relaxed), 2);

    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((stranger, 0).into()).expect("bound");
    let mut stream = socket.connect(dns.addr).await.expect("connected");
    let end = timeout(LONG, read_framed(&mut stream))
        .await
        .expect("in time");
    assert!(end.is_err(), "closed at once");

    let friend = dns.udp(&query(APP, RecordType::A)).await;
    assert_eq!(friend.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn by_default_only_the_node_itself_is_served() {
    let allow = DnsConfig::default().allow.load_full();
    let allows = |addr: &str| {
        let addr: IpAddr = addr.parse().expect("an address");
        allow.iter().any(|prefix| prefix.contains(&addr))
    };
    assert!(allows("127.0.0.53") && allows("::1"));
    assert!(!allows("10.0.0.1") && !allows("fe80::1") && !allows("192.168.1.1"));
}

#[tokio::test]
async fn nothing_is_forwarded_that_asks_for_no_recursion() {
    let upstream = Upstream::start(|query| address(query, [192, 0, 2, 1])).await;
    let dns = Dns::start(config(&[upstream.addr])).await;
    let mut asked = query("www.example.com.", RecordType::A);
    asked.metadata.recursion_desired = false;
    let reply = dns.udp(&asked).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert_eq!(upstream.asked(), 0);
    let mut ours = query(APP, RecordType::A);
    ours.metadata.recursion_desired = false;
    assert_eq!(dns.udp(&ours).await.answers.len(), 1);
}

#[tokio::test]
async fn a_dead_upstream_costs_two_seconds_at_most() {
    let (dead, _held) = Upstream::dead().await;
    let dns = Dns::start(config(&[dead])).await;
    let start = std::time::Instant::now();
    let queries = [
        query("www.example.com.", RecordType::A),
        query(APP, RecordType::A),
    ];
    let replies = dns.tcp(&queries).await;
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(replies[0].metadata.response_code, ResponseCode::ServFail);
    assert_eq!(replies[1].answers.len(), 1);
    assert_eq!(dns.stats.forward_failed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_dead_upstream_does_not_keep_ours_waiting_or_take_all_descriptors() {
    let (dead, _held) = Upstream::dead().await;
    let dns = Dns::start(config(&[dead])).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    for n in 0..700 {
        let asked = query(&format!("host{n}.example.com."), RecordType::A);
        let bytes = asked.to_vec().expect("a message");
        client.send_to(&bytes, dns.addr).await.expect("sent");
        tokio::task::yield_now().await;
    }
    let shed = async {
        while dns.stats.forward_shed.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, shed).await.expect("the bound is met");
    let start = std::time::Instant::now();
    let reply = dns.udp(&query(APP, RecordType::A)).await;
    assert_eq!(reply.answers.len(), 1);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}
