//! Names that are not ours.

use super::*;

const FOREIGN: &str = "www.example.com.";

#[tokio::test]
async fn other_names_go_to_the_upstream() {
    let upstream = Upstream::start(|query| address(query, [192, 0, 2, 1])).await;
    let dns = Dns::start(config(&[upstream.addr])).await;
    let a = query(FOREIGN, RecordType::A);
    for reply in [dns.udp(&a).await, dns.tcp(&[a]).await.remove(0)] {
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(!reply.metadata.authoritative && reply.metadata.recursion_available);
        assert_eq!(reply.answers.len(), 1);
        assert_eq!(reply.answers[0].data.to_string(), "192.0.2.1");
    }
    let key = "app.marathon.l4lb.unknownkey.dcos.directory.";
    let reply = dns.udp(&query(key, RecordType::A)).await;
    assert_eq!(
        reply.answers.len(),
        1,
        "another cluster's key is an ordinary name"
    );
    let ours = dns.udp(&query(APP, RecordType::A)).await;
    assert_eq!(ours.answers[0].data.to_string(), "11.0.0.1");
    assert_eq!(upstream.asked(), 2, "once a name, and never for ours");
    assert_eq!(dns.stats.forwarded.load(Ordering::Relaxed), 3);
    assert_eq!(dns.stats.answered.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_the_upstream_denies_is_denied_with_its_soa() {
    let upstream = Upstream::start(|query| {
        let code = match query.query_type() {
            RecordType::A => ResponseCode::NXDomain,
            _ => ResponseCode::NoError,
        };
        let mut reply = reply(code);
        let contact = name("root.example.com.");
        let soa = rdata::SOA::new(name("ns.example.com."), contact, 7, 1, 1, 1, 30);
        reply.add_authority(Record::from_rdata(
            name("example.com."),
            60,
            RData::SOA(soa),
        ));
        reply
    })
    .await;
    let dns = Dns::start(config(&[upstream.addr])).await;
    for (asked, record_type, code) in [
        ("no.example.com.", RecordType::A, ResponseCode::NXDomain),
        (FOREIGN, RecordType::AAAA, ResponseCode::NoError),
    ] {
        let reply = dns.udp(&query(asked, record_type)).await;
        assert_eq!(reply.metadata.response_code, code);
        assert_eq!(reply.answers.len(), 0);
        assert_eq!(reply.authorities.len(), 1);
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
    }
}

#[tokio::test]
async fn an_upstreams_aliases_and_refusals_come_through() {
    let upstream = Upstream::start(|query| {
        if query.name().to_ascii().starts_with("refused") {
            return reply(ResponseCode::Refused);
        }
        let target = name("target.example.com.");
        let mut reply = reply(ResponseCode::NoError);
        let cname = RData::CNAME(rdata::CNAME(target.clone()));
        reply.add_answer(Record::from_rdata(query.name().clone(), 60, cname));
        let a = RData::A(rdata::A([192, 0, 2, 7].into()));
        reply.add_answer(Record::from_rdata(target, 60, a));
        reply
    })
    .await;
    let dns = Dns::start(config(&[upstream.addr])).await;
    let reply = dns.udp(&query("alias.example.com.", RecordType::A)).await;
    let data: Vec<_> = reply.answers.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(data, ["target.example.com.", "192.0.2.7"]);
    let refused = dns.udp(&query("refused.example.com.", RecordType::A)).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn a_long_answer_is_cut_to_what_the_client_takes() {
    let upstream = Upstream::start(|query| {
        let mut reply = reply(ResponseCode::NoError);
        for n in 0..20 {
            let text = rdata::TXT::new(vec![format!("{n:0>90}")]);
            reply.add_answer(Record::from_rdata(
                query.name().clone(),
                60,
                RData::TXT(text),
            ));
        }
        reply
    })
    .await;
    let dns = Dns::start(config(&[upstream.addr])).await;
    let txt = query(FOREIGN, RecordType::TXT);
    for asked in [txt.clone(), with_edns(txt.clone(), 4096)] {
        let has_edns = asked.edns.is_some();
        let cut = dns.udp(&asked).await;
        assert!(cut.metadata.truncation);
        assert_eq!(cut.answers.len(), 0);
        assert_eq!(cut.edns.is_some(), has_edns, "OPT stays on a cut reply");
    }
    let whole = dns.tcp(&[txt]).await.remove(0);
    assert_eq!(whole.answers.len(), 20);
}

#[tokio::test]
async fn compression_counts_when_an_answer_is_measured() {
    // 30 addresses: more than 1232 bytes with every name written out, fewer as they are sent.
    let owner = "a-rather-long-name-of-a-service.example.com.";
    let upstream = Upstream::start(|query| {
        let mut reply = reply(ResponseCode::NoError);
        for n in 0..30 {
            let a = RData::A(rdata::A([192, 0, 2, n].into()));
            reply.add_answer(Record::from_rdata(query.name().clone(), 60, a));
        }
        reply
    })
    .await;
    let dns = Dns::start(config(&[upstream.addr])).await;
    let reply = dns.udp(&with_edns(query(owner, RecordType::A), 1232)).await;
    assert!(!reply.metadata.truncation);
    assert_eq!(reply.answers.len(), 30);
}

#[tokio::test]
async fn without_an_upstream_other_names_fail_at_once() {
    let dns = Dns::start(config(&[])).await;
    let reply = dns.udp(&query(FOREIGN, RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn we_are_never_our_own_upstream() {
    let sockets = bind();
    let own = sockets.addresses();
    let dns = Dns::on(sockets, config(&own)).await;
    let reply = dns.udp(&query(FOREIGN, RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(dns.stats.forwarded.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_second_upstream_answers_for_a_dead_first_one() {
    let (dead, _held) = Upstream::dead().await;
    let alive = Upstream::start(|query| address(query, [192, 0, 2, 2])).await;
    let dns = Dns::start(config(&[dead, alive.addr])).await;
    let start = std::time::Instant::now();
    let reply = dns.udp(&query(FOREIGN, RecordType::A)).await;
    assert_eq!(reply.answers.len(), 1);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    let start = std::time::Instant::now();
    let reply = dns.udp(&query("other.example.com.", RecordType::A)).await;
    assert_eq!(reply.answers.len(), 1);
    assert!(
        start.elapsed() < Duration::from_millis(800),
        "the dead one is asked last: {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn the_first_upstream_is_asked_first_and_the_next_when_it_will_not_help() {
    let first = Upstream::start(|query| match query.name().to_ascii().as_str() {
        "failing.example.com." => reply(ResponseCode::ServFail),
        _ => address(query, [192, 0, 2, 1]),
    })
    .await;
    let second = Upstream::start(|query| address(query, [192, 0, 2, 2])).await;
    let dns = Dns::start(config(&[first.addr, second.addr])).await;
    let reply = dns.udp(&query(FOREIGN, RecordType::A)).await;
    assert_eq!(reply.answers[0].data.to_string(), "192.0.2.1");
    assert_eq!(second.asked(), 0);
    let reply = dns.udp(&query("failing.example.com.", RecordType::A)).await;
    assert_eq!(reply.answers[0].data.to_string(), "192.0.2.2");
}

#[tokio::test]
async fn a_changed_resolv_conf_is_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let resolv_conf = dir.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "# none yet\n").expect("written");
    let config = DnsConfig {
        resolv_conf: resolv_conf.clone(),
        ..DnsConfig::default()
    };
    let reported = Arc::clone(&config.asked);
    let dns = Dns::start(config).await;
    let asked = query(FOREIGN, RecordType::A);
    let none = dns.udp(&asked).await;
    assert_eq!(none.metadata.response_code, ResponseCode::ServFail);
    let sent = || {
        let failed = dns.stats.forward_failed.load(Ordering::Relaxed);
        failed + dns.stats.forwarded.load(Ordering::Relaxed)
    };
    assert_eq!(sent(), 0, "there is nobody to send to");
    // Most likely nothing listens there, which shows in the counters as well as an answer would.
    std::fs::write(&resolv_conf, "nameserver 127.77.77.77\n").expect("written");
    let followed = async {
        while sent() == 0 {
            dns.udp(&asked).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, followed).await.expect("followed in time");
    assert_eq!(
        **reported.load(),
        ["127.77.77.77:53".parse().expect("an address")]
    );
}
