//! Each wrong setting is one sentence with its place.

use std::fs;

use super::Node;

fn flags(flags: &[&str]) -> String {
    Node::new().flags(flags).refusal()
}

fn file(text: &str) -> String {
    Node::new().file(text).refusal()
}

#[test]
fn the_place_is_the_flag_the_variable_or_the_line() {
    let reason = "\"0\" is not a whole number from 1 to 3600";
    assert_eq!(flags(&["--resync", "0"]), format!("--resync: {reason}"));
    assert_eq!(
        Node::new().env("LB_AGENT_RESYNC", "0").refusal(),
        format!("LB_AGENT_RESYNC: {reason}")
    );
    assert_eq!(
        file("\n# x\nresync = 0"),
        format!("DIR/config.toml, line 3, resync: {reason}")
    );
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    let place = "DIR/config.toml, line 2";
    assert_eq!(
        file("flows = 9\ndns-lisen = '127.0.0.1:53'"),
        format!("{place}, dns-lisen: unknown key; did you mean dns-listen?")
    );
    assert_eq!(
        file("\nnode_ports = '1-2'"),
        format!("{place}, node_ports: unknown key; did you mean node-ports?")
    );
    assert_eq!(
        file("\nzzz = 1"),
        format!(
            "{place}, zzz: unknown key; `lb-agent --help` lists all, without the dashes in front"
        )
    );
    assert_eq!(
        file("\n[marathon-urls]\nx = 1"),
        format!("{place}, marathon-urls: unknown key; did you mean marathon-user?")
    );
}

#[test]
fn a_broken_file_names_the_line() {
    let sentence = file("resync = 30\nlog = \"info\nflows = 1");
    assert!(
        sentence.starts_with("DIR/config.toml, line 2: not valid TOML: "),
        "{sentence}"
    );
    let sentence = file("resync = 30\nresync = 31");
    assert!(
        sentence.starts_with("DIR/config.toml, line 2: not valid TOML: duplicate key"),
        "{sentence}"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_refused() {
    let place = "DIR/config.toml, line 1";
    assert_eq!(
        file("resync = true"),
        format!("{place}, resync: must be a string or a number, not a boolean")
    );
    assert_eq!(
        file("resync = [30]"),
        format!("{place}, resync: takes one value, not a list")
    );
    assert_eq!(
        file("iface = { name = 'eth0' }"),
        format!("{place}, iface: must be a string or a list of strings, not a table")
    );
    assert_eq!(
        file("iface = [['eth0']]"),
        format!("{place}, iface: must be a string or a list of strings, not an array")
    );
    assert_eq!(
        file("flows = 0x1ffffffffffffffff"),
        format!("{place}, flows: 1ffffffffffffffff is too large a number")
    );
}

#[test]
fn the_config_file_must_be_there_and_be_text() {
    assert_eq!(
        flags(&["--config", "/nowhere/x.toml"]),
        "/nowhere/x.toml: the config file does not exist"
    );
    assert_eq!(flags(&["--config", ""]), "--config: must not be empty");
    assert_eq!(
        flags(&["--config", "/"]),
        "/: cannot read the config file: Is a directory (os error 21)"
    );
    let node = Node::new();
    fs::write(&node.around.config, [0xff, 0xfe]).unwrap();
    assert_eq!(
        node.refusal(),
        "DIR/config.toml: the config file is not UTF-8 text"
    );
}

#[test]
fn the_config_file_does_not_name_another() {
    assert_eq!(
        file("config = 'other.toml'"),
        "DIR/config.toml, line 1, config: cannot be set in the config file itself, only by flag or environment"
    );
}

#[test]
fn words_must_be_known_ones() {
    assert_eq!(
        flags(&["--xdp-mode", "fast"]),
        "--xdp-mode: \"fast\" is not one of native, generic, off"
    );
    assert_eq!(
        flags(&["--log-format", "xml"]),
        "--log-format: \"xml\" is not one of auto, text, json, journald"
    );
    assert_eq!(
        flags(&["--name-policy", "no"]),
        "--name-policy: \"no\" is not one of any, app-path, owner"
    );
}

#[test]
fn interface_names_must_be_possible_ones() {
    for name in ["sixteen-letters-", "a/b", "..", "a:b"] {
        assert_eq!(
            flags(&["--iface", name]),
            format!("--iface: \"{name}\" cannot be the name of an interface")
        );
    }
}

#[test]
fn marathon_urls_must_be_plain_http_ones() {
    let sentence = flags(&["--marathon", "m:8080"]);
    assert_eq!(
        sentence,
        "--marathon: \"m:8080\" must begin with http:// or https://"
    );
    assert_eq!(
        flags(&["--marathon", "marathon"]),
        "--marathon: \"marathon\" is not a URL such as http://marathon.mesos:8080 (relative URL without a base)"
    );
    assert_eq!(
        flags(&["--marathon", "ftp://m"]),
        "--marathon: \"ftp://m\" must begin with http:// or https://"
    );
    assert_eq!(
        flags(&["--marathon", "http://u:p@m"]),
        "--marathon: a URL must not hold a user or password; use --marathon-user and --marathon-password-file"
    );
    assert_eq!(
        flags(&["--marathon", "http://m/?a"]),
        "--marathon: \"http://m/?a\" must end with the path: no ? and no #"
    );
}

#[test]
fn marathon_settings_need_a_marathon_and_each_other() {
    assert_eq!(
        flags(&["--marathon-user", "u"]),
        "--marathon-user: has no effect without --marathon"
    );
    let marathon = ["--marathon", "http://m:8080"];
    let with = |more: &[&str]| flags(&[&marathon[..], more].concat());
    assert_eq!(
        with(&["--marathon-user", "u"]),
        "--marathon-user: needs --marathon-password-file beside it"
    );
    assert_eq!(
        with(&["--marathon-password-file", "/dev/null"]),
        "--marathon-password-file: needs --marathon-user beside it"
    );
    assert_eq!(
        with(&["--marathon-user", "u", "--marathon-token-file", "/dev/null"]),
        "--marathon-token-file: contradicts --marathon-user and --marathon-password-file: log in with one or the other"
    );
    assert_eq!(
        with(&["--marathon-ca-file", "/dev/null"]),
        "--marathon-ca-file: has no effect: no --marathon URL begins with https://"
    );
    let account = ["--marathon-credentials-file", "/dev/null"];
    assert_eq!(
        with(&[&account[..], &["--marathon-token-file", "/dev/null"]].concat()),
        "--marathon-credentials-file: contradicts --marathon-user, --marathon-password-file and --marathon-token-file: log in \
         with one of them"
    );
    assert_eq!(
        flags(&["--marathon-group", "external"]),
        "--marathon-group: has no effect without --marathon"
    );
    assert_eq!(
        with(&["--marathon-strict-mode"]),
        "--marathon-strict-mode: has no effect without --marathon-group"
    );
    assert_eq!(
        with(&["--marathon-group", "*", "--marathon-skip", "/"]),
        "--marathon-skip: is not an app id such as /shop/web"
    );
    assert_eq!(
        with(&["--marathon-framework", ""]),
        "--marathon-framework: must not be empty"
    );
}

#[test]
fn files_must_be_readable() {
    let missing = "cannot read \"/nowhere\": No such file or directory (os error 2)";
    assert_eq!(
        flags(&["--services", "/nowhere"]),
        format!("--services: {missing}")
    );
    assert_eq!(
        flags(&["--marathon", "https://m", "--marathon-ca-file", "/"]),
        "--marathon-ca-file: \"/\" is a directory, not a file"
    );
    assert_eq!(
        flags(&["--marathon", "https://m", "--marathon-ca-file", "/nowhere"]),
        format!("--marathon-ca-file: {missing}")
    );
}

#[test]
fn dns_addresses_must_be_ones_that_can_be_answered_from() {
    assert_eq!(
        flags(&["--dns-listen", "127.0.0.1"]),
        "--dns-listen: \"127.0.0.1\" is not an address with a port, such as 127.0.0.1:53 or [::1]:53"
    );
    for wildcard in ["0.0.0.0:53", "[::]:53"] {
        assert_eq!(
            flags(&["--dns-listen", wildcard]),
            format!(
                "--dns-listen: \"{wildcard}\" stands for all addresses; name each address to listen on"
            )
        );
    }
    assert_eq!(
        flags(&["--dns-listen", "224.0.0.1:53"]),
        "--dns-listen: \"224.0.0.1:53\" is a multicast address"
    );
    assert_eq!(
        flags(&["--dns-listen", "127.0.0.1:0"]),
        "--dns-listen: \"127.0.0.1:0\" has port 0"
    );
    assert_eq!(
        flags(&["--dns-link-address", "127.0.0.9"]),
        "--dns-link-address: \"127.0.0.9\" cannot be reached from a container; use a link-local or private address"
    );
    assert_eq!(
        flags(&["--dns-link-address", "x"]),
        "--dns-link-address: \"x\" is neither an address nor `none`"
    );
}

#[test]
fn dns_off_leaves_nothing_to_set_up() {
    assert_eq!(
        flags(&["--dns-listen", "none", "--dns-upstream", "10.0.0.2"]),
        "--dns-upstream: has no effect: --dns-listen none turns DNS off"
    );
    assert_eq!(
        flags(&["--dns-listen", "none,127.0.0.1:53"]),
        "--dns-listen: `none` cannot stand beside other values"
    );
}

#[test]
fn dns_never_forwards_to_itself() {
    for own in ["127.0.0.1", "169.254.53.53:53"] {
        let sentence = flags(&["--dns-upstream", own]);
        assert!(
            sentence.ends_with("is where lb-agent itself listens: it would ask itself for ever"),
            "{sentence}"
        );
    }
}

#[test]
fn resolvers_and_keys_must_be_possible_ones() {
    assert_eq!(
        flags(&["--dns-upstream", "dns.example"]),
        "--dns-upstream: \"dns.example\" is not an address with or without port, such as 10.0.0.2 or [fd00::2]:5353"
    );
    for path in ["/", "monitor", "/a b", "/a?b", ""] {
        let sentence = flags(&["--admin-health-path", path]);
        let expected = format!("--admin-health-path: {path:?} is not a path such as /monitor");
        assert!(sentence.starts_with(&expected), "{sentence}");
    }
    assert_eq!(
        flags(&["--syslog", "0.0.0.0"]),
        "--syslog: \"0.0.0.0\" cannot be a syslog server"
    );
    assert_eq!(
        flags(&["--dns-upstream", "0.0.0.0"]),
        "--dns-upstream: \"0.0.0.0\" cannot be a resolver"
    );
    assert_eq!(
        flags(&["--dns-cluster-key", "v2l0"]),
        "--dns-cluster-key: \"v2l0\" is not a zbase32 key of at most 63 letters and digits"
    );
}

#[test]
fn prefixes_must_be_prefixes() {
    for key in ["--ip-vips", "--dns-allow", "--outside-allow"] {
        assert_eq!(
            flags(&[key, "x/8"]),
            format!("{key}: \"x/8\" is not a prefix such as 10.0.0.0/8 or fd00::/8")
        );
        assert_eq!(
            flags(&[key, "10.1.2.3/8"]),
            format!(
                "{key}: \"10.1.2.3/8\" has bits set after its prefix; did you mean 10.0.0.0/8?"
            )
        );
    }
}

#[test]
fn pools_must_be_ranges_of_addresses_that_can_be_given_away() {
    let v4 = |range: &str| flags(&["--vip-pool-v4", range]);
    let malformed = "is not a range of addresses such as 11.0.0.0-11.255.255.255";
    assert_eq!(
        v4("11.0.0.0/8"),
        format!("--vip-pool-v4: \"11.0.0.0/8\" {malformed}")
    );
    assert_eq!(
        v4("11.0.0.0-::1"),
        format!("--vip-pool-v4: \"11.0.0.0-::1\" {malformed}")
    );
    assert_eq!(
        v4("11.0.0.1-11.0.0.1"),
        "--vip-pool-v4: \"11.0.0.1-11.0.0.1\" must end after it begins"
    );
    assert_eq!(
        v4("126.0.0.0-128.0.0.0"),
        "--vip-pool-v4: \"126.0.0.0-128.0.0.0\" holds loopback addresses (127.0.0.0/8)"
    );
    assert_eq!(
        v4("223.0.0.0-224.0.0.0"),
        "--vip-pool-v4: \"223.0.0.0-224.0.0.0\" holds multicast or reserved addresses (224.0.0.0/3)"
    );
    assert_eq!(
        flags(&["--vip-pool-v6", "fe80::-fe80::9"]),
        "--vip-pool-v6: \"fe80::-fe80::9\" holds link-local addresses (fe80::/10)"
    );
}

#[test]
fn a_pool_must_not_hold_an_address_that_dns_uses() {
    assert_eq!(
        flags(&[
            "--vip-pool-v4",
            "10.0.0.0-10.0.0.9",
            "--dns-upstream",
            "10.0.0.2"
        ]),
        "--vip-pool-v4: 10.0.0.0-10.0.0.9 holds 10.0.0.2, which is used for DNS"
    );
}

#[test]
fn port_ranges_must_be_ranges_that_do_not_meet() {
    let malformed =
        |text| format!("--node-ports: \"{text}\" is not a range of ports such as 10000-20000");
    for text in ["80", "0-80", "1-65536", "a-b"] {
        assert_eq!(flags(&["--node-ports", text]), malformed(text));
    }
    assert_eq!(
        flags(&["--node-ports", "9-8"]),
        "--node-ports: \"9-8\" ends before it begins"
    );
    assert_eq!(
        flags(&["--node-ports", "10000-61001"]),
        "--node-ports: the ranges --snat-ports 61001-65535 and --node-ports 10000-61001 share ports"
    );
}

#[test]
fn directories_must_be_absolute_and_short_enough_for_a_socket() {
    for key in ["--pin-dir", "--state-dir", "--run-dir", "--cgroup"] {
        assert_eq!(
            flags(&[key, "x"]),
            format!("{key}: \"x\" must be an absolute path, such as /run/lb-agent")
        );
    }
    let long = format!("/{}", "x".repeat(100));
    assert_eq!(
        flags(&["--run-dir", &long]),
        format!("--run-dir: \"{long}\" is too long for a socket in it: at most 96 bytes")
    );
}

#[test]
fn sizes_must_be_possible_ones() {
    for key in ["--flows", "--udp-flows", "--max-backends", "--max-services"] {
        for text in ["0", "many", "134217729", "1e6"] {
            let wanted = format!("{key}: \"{text}\" is not a whole number from 1 to 134217728");
            assert_eq!(flags(&[key, text]), wanted);
        }
    }
}

#[test]
fn a_log_filter_must_be_one() {
    let sentence = flags(&["--log", "lb_agent=loud"]);
    assert!(
        sentence.starts_with("--log: \"lb_agent=loud\" is not a log filter such as "),
        "{sentence}"
    );
}

#[test]
fn peers_are_other_nodes_and_have_their_port_to_themselves() {
    assert_eq!(flags(&["--dsr"]), "--dsr: needs --peers beside it");
    for addr in ["0.0.0.0", "127.0.0.1", "ff02::1"] {
        assert_eq!(
            flags(&["--peers", addr]),
            format!("--peers: {addr} is no other node's address")
        );
    }
    assert_eq!(
        flags(&["--peers", "node2"]),
        "--peers: \"node2\" is neither an IP address nor `etcd`"
    );
    assert_eq!(
        flags(&["--peers", "etcd"]),
        "--peers: `etcd` needs --etcd beside it"
    );
    let etcd = ["--peers", "etcd", "--etcd", "http://e:2379"];
    assert_eq!(
        flags(&[&etcd[..], &["--snat-ports", "6000-7000"]].concat()),
        "--snat-ports: 6000-7000 holds port 6081, by which peers send"
    );
    assert_eq!(
        flags(&["--peers", "10.0.0.1", "--snat-ports", "6000-7000"]),
        "--snat-ports: 6000-7000 holds port 6081, by which peers send"
    );
}
