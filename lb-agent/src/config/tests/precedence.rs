//! Flag over environment over file over default, and what the defaults are.

use std::time::Duration;

use super::Node;
use crate::config::{LogFormat, MarathonAuth, NamePolicy, XdpMode};

#[test]
fn without_any_setting_the_defaults_hold() {
    let node = Node::new();
    let config = node.config();
    assert_eq!(config.interfaces, Vec::<String>::new());
    assert_eq!(config.xdp_mode, XdpMode::Native);
    assert_eq!(config.marathon, None);
    let dns = config.dns.clone().unwrap();
    let sockets: Vec<_> = dns.sockets().iter().map(ToString::to_string).collect();
    assert_eq!(sockets, ["127.0.0.1:53", "[::1]:53", "169.254.53.53:53"]);
    assert!(dns.listen_by_default);
    assert_eq!(
        (dns.upstreams, dns.allow, dns.cluster_key),
        (None, None, None)
    );
    assert_eq!(config.vip_pool_v4.to_string(), "11.0.0.0-11.255.255.255");
    assert_eq!(
        config.vip_pool_v6.to_string(),
        "fd01:c::-fd01:c::ffff:ffff:ffff:ffff"
    );
    assert_eq!(config.snat_ports.to_string(), "61001-65535");
    assert_eq!(config.node_ports.to_string(), "10000-20000");
    assert_eq!(config.ip_vips, []);
    assert_eq!(config.outside_allow, None);
    assert_eq!(config.name_policy, NamePolicy::Any);
    assert_eq!(config.paths.run_dir.to_str(), Some("/run/lb-agent"));
    assert_eq!(config.paths.state_dir.to_str(), Some("/var/lib/lb-agent"));
    assert_eq!(config.paths.pin_dir.to_str(), Some("/sys/fs/bpf/lb-agent"));
    assert_eq!(config.paths.cgroup, None);
    let sizes = config.sizes;
    assert_eq!(
        (sizes.flows, sizes.udp_flows, sizes.backends, sizes.services),
        (1_048_576, 262_144, 65_536, 16_384)
    );
    assert_eq!(
        (sizes.half_open_flows, config.new_flows),
        (131_072, 100_000)
    );
    assert_eq!(config.resync, Duration::from_secs(30));
    assert_eq!(
        (config.log.format, config.log.filter.as_str()),
        (LogFormat::Auto, "info")
    );
}

#[test]
fn a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() {
    let node = Node::new();
    assert_eq!(node.config().resync.as_secs(), 30);
    let node = node.file("resync = 40");
    assert_eq!(node.config().resync.as_secs(), 40);
    let node = node.env("LB_AGENT_RESYNC", "50");
    assert_eq!(node.config().resync.as_secs(), 50);
    let node = node.flags(&["--resync", "60"]);
    assert_eq!(node.config().resync.as_secs(), 60);
}

#[test]
fn the_stronger_place_replaces_a_list_as_a_whole() {
    let node = Node::new()
        .file(r#"iface = ["eth0", "eth1"]"#)
        .env("LB_AGENT_IFACE", "br0");
    assert_eq!(node.config().interfaces, ["br0"]);
}

#[test]
fn a_list_may_be_repeated_or_written_with_commas_or_blanks() {
    let wanted = ["a", "b", "c"];
    assert_eq!(
        Node::new()
            .flags(&["--iface", "a", "--iface=b,c"])
            .config()
            .interfaces,
        wanted
    );
    assert_eq!(
        Node::new()
            .env("LB_AGENT_IFACE", "a b, c")
            .config()
            .interfaces,
        wanted
    );
    assert_eq!(
        Node::new().file(r#"iface = "a,b,c""#).config().interfaces,
        wanted
    );
    assert_eq!(
        Node::new()
            .file("iface = [\n'a', 'b', # two\n'c']")
            .config()
            .interfaces,
        wanted
    );
}

#[test]
fn the_same_interface_twice_is_one_interface() {
    assert_eq!(
        Node::new()
            .flags(&["--iface", "eth0,eth0"])
            .config()
            .interfaces,
        ["eth0"]
    );
}

#[test]
fn an_empty_variable_sets_nothing() {
    let node = Node::new().file("resync = 40").env("LB_AGENT_RESYNC", "  ");
    assert_eq!(node.config().resync.as_secs(), 40);
}

#[test]
fn an_unknown_variable_is_a_warning_since_kubernetes_makes_such() {
    let warnings = Node::new()
        .env("LB_AGENT_SERVICE_HOST", "10.0.0.1")
        .config()
        .warnings;
    let wanted = "the environment variable LB_AGENT_SERVICE_HOST is no setting of lb-agent and has no effect";
    assert!(
        warnings.iter().any(|warning| warning == wanted),
        "{warnings:?}"
    );
}

#[test]
fn the_config_file_is_named_by_flag_or_environment() {
    let node = Node::new()
        .with("one.toml", "resync = 1")
        .with("two.toml", "resync = 2")
        .file("resync = 3");
    let (one, two) = (node.path("one.toml"), node.path("two.toml"));
    assert_eq!(node.config().resync.as_secs(), 3);
    let node = node.env("LB_AGENT_CONFIG", one.to_str().unwrap());
    assert_eq!(node.config().resync.as_secs(), 1);
    let node = node.flags(&["--config", two.to_str().unwrap()]);
    assert_eq!(node.config().resync.as_secs(), 2);
}

#[test]
fn numbers_in_the_file_may_be_written_as_toml_allows() {
    assert_eq!(
        Node::new().file("flows = 2_000_000").config().sizes.flows,
        2_000_000
    );
    assert_eq!(Node::new().file("flows = 0x100").config().sizes.flows, 256);
    assert_eq!(Node::new().file("flows = '512'").config().sizes.flows, 512);
}

#[test]
fn a_switch_is_on_by_its_flag_alone_and_may_be_written_out() {
    let peers = "peers = ['10.0.0.1', 'fd00::1']";
    let node = || Node::new().file(peers);
    assert_eq!(node().config().peers.len(), 2);
    assert!(!node().config().dsr);
    assert!(node().flags(&["--dsr"]).config().dsr);
    assert!(node().env("LB_AGENT_DSR", "yes").config().dsr);
    let file = |on: &str| Node::new().file(&format!("{peers}\ndsr = {on}"));
    assert!(file("true").config().dsr);
    assert!(!file("false").config().dsr);
    assert!(!file("true").flags(&["--dsr=no"]).config().dsr);
    assert!(file("1").load().is_err());
}

#[test]
fn several_marathon_urls_are_one_cluster_tried_in_order() {
    let marathon = Node::new()
        .flags(&["--marathon", "http://b:8080,https://a/service/marathon"])
        .config()
        .marathon;
    let marathon = marathon.unwrap();
    let urls: Vec<_> = marathon.urls.iter().map(ToString::to_string).collect();
    assert_eq!(urls, ["http://b:8080/", "https://a/service/marathon"]);
    assert_eq!(marathon.auth, MarathonAuth::Open);
}

#[test]
fn the_event_stream_of_marathon_may_be_silent_for_half_a_minute_or_as_long_as_is_said() {
    let silence = |flags: &[&str]| {
        let flags: Vec<_> = ["--marathon", "http://m:8080"]
            .iter()
            .chain(flags)
            .copied()
            .collect();
        let config = Node::new().flags(&flags).load();
        config.map(|config| config.marathon.unwrap().stream_timeout.as_secs())
    };
    assert_eq!(silence(&[]).unwrap(), 30);
    assert_eq!(silence(&["--marathon-stream-timeout", "60"]).unwrap(), 60);
    for wrong in ["29", "601", "soon"] {
        let refused = silence(&["--marathon-stream-timeout", wrong])
            .unwrap_err()
            .to_string();
        let expected =
            format!("--marathon-stream-timeout: \"{wrong}\" is not a whole number from 30 to 600");
        assert!(refused.contains(&expected), "{refused}");
    }
}

#[test]
fn groups_and_skipped_apps_of_marathon_are_lists() {
    let flags = [
        "--marathon",
        "http://m:8080",
        "--marathon-group",
        "external,*",
    ];
    let skip = ["--marathon-skip", "marathon-lb,/shop/old"];
    let config = Node::new().flags(&[&flags[..], &skip].concat()).config();
    let marathon = config.marathon.unwrap();
    assert_eq!(marathon.groups, ["external", "*"]);
    assert_eq!(marathon.skipped, ["/marathon-lb", "/shop/old"]);
    assert!(!marathon.strict_mode);
}

#[test]
fn user_and_password_may_come_from_different_places() {
    let node = Node::new()
        .with("password", "secret\n")
        .file("marathon = 'http://m:8080'\nmarathon-user = 'lb'");
    let password = node.path("password");
    let node = node.env(
        "LB_AGENT_MARATHON_PASSWORD_FILE",
        password.to_str().unwrap(),
    );
    let auth = node.config().marathon.unwrap().auth;
    assert_eq!(
        auth,
        MarathonAuth::Basic {
            user: "lb".into(),
            password_file: password
        }
    );
}

#[test]
fn the_usual_services_file_is_read_if_it_is_there() {
    let node = Node::new()
        .with("services.yaml", "services: []")
        .flags(&["--marathon", "http://m:8080"]);
    assert_eq!(node.config().services, Some(node.path("services.yaml")));
}

#[test]
fn beside_marathon_a_services_file_that_is_not_there_is_not_waited_for() {
    let config = Node::new().flags(&["--marathon", "http://m:8080"]).config();
    assert_eq!((config.services, config.warnings), (None, vec![]));
}

#[test]
fn with_nothing_to_read_it_waits_for_the_usual_services_file_and_says_so() {
    let node = Node::new();
    let config = node.config();
    assert_eq!(config.services, Some(node.path("services.yaml")));
    assert!(
        config.warnings[0].starts_with("nothing to read services from"),
        "{:?}",
        config.warnings
    );
}

#[test]
fn none_is_an_empty_list_and_not_the_default() {
    let config = Node::new()
        .flags(&["--outside-allow", "none", "--dns-allow", "none"])
        .config();
    assert_eq!(config.outside_allow, Some(vec![]));
    assert_eq!(config.dns.unwrap().allow, Some(vec![]));
    assert_eq!(
        Node::new()
            .file("outside-allow = []")
            .config()
            .outside_allow,
        Some(vec![])
    );
}

#[test]
fn dns_can_be_turned_off_over_a_file_that_sets_it_up() {
    let node = Node::new()
        .file("dns-upstream = '10.0.0.2'")
        .flags(&["--dns-listen", "none"]);
    assert_eq!(node.config().dns, None);
}

#[test]
fn a_resolver_without_port_is_asked_on_53() {
    let dns = Node::new()
        .flags(&[
            "--dns-upstream",
            "10.0.0.2,[fd00::2],fd00::3,10.0.0.4:5353,[fd00::5]:54",
        ])
        .config();
    let upstreams: Vec<_> = dns
        .dns
        .unwrap()
        .upstreams
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        upstreams,
        [
            "10.0.0.2:53",
            "[fd00::2]:53",
            "[fd00::3]:53",
            "10.0.0.4:5353",
            "[fd00::5]:54"
        ]
    );
}

#[test]
fn a_single_address_is_a_prefix_of_its_full_length() {
    let config = Node::new()
        .flags(&["--ip-vips", "10.1.2.3,fd01:c::/32"])
        .config();
    let nets: Vec<_> = config.ip_vips.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.1.2.3/32", "fd01:c::/32"]);
}

#[test]
fn the_link_address_can_be_left_out() {
    let dns = Node::new()
        .flags(&["--dns-link-address", "none", "--dns-listen", "127.0.0.1:53"])
        .config()
        .dns
        .unwrap();
    assert_eq!(dns.sockets(), dns.listen);
    assert!(!dns.listen_by_default);
}
