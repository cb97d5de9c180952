//! The end of `lb-agent --help`.

/// Printed after the flags.
pub(super) const EXAMPLES: &str = "\
Settings:
  Every flag above is also a key of the config file and an environment variable:
  --dns-listen is dns-listen = [\"127.0.0.1:53\"] in TOML and LB_AGENT_DNS_LISTEN.
  A flag wins over the environment, that over the file. Flags that may be repeated
  also take a list with commas; the stronger place replaces the whole list.

Examples:
  Serve this node, and clients that come in on eth0, with the VIPs of a Marathon:
    lb-agent --iface eth0 --marathon http://marathon.mesos:8080

  The same with three masters and basic authentication:
    lb-agent --iface eth0 --marathon https://m1:8443,https://m2:8443,https://m3:8443 \\
        --marathon-user lb --marathon-password-file /etc/lb-agent/password

  Services listed by hand, for this node alone:
    lb-agent --services ./services.yaml

  Look at what it does, ask its DNS, and take everything out of the kernel again:
    lb-agent status
    lb-agent resolve dcos-101app2.marathon
    lb-agent purge

  Take a backend out for an hour's work, and reset what it still has after a minute:
    lb-agent maintenance 10.0.1.5:28543 --deadline 60
    lb-agent ready 10.0.1.5:28543

  See which flows a backend has, and why a client gets the one that it gets:
    lb-agent flows --backend 10.0.1.5
    lb-agent explain 192.0.2.7:40000 11.68.84.23:10000

  Follow what happens to a client's packets, and keep ten seconds of a service's for Wireshark:
    lb-agent trace --client 192.0.2.7
    lb-agent capture --vip dcos-101app2.marathon --for 10 -w packets.pcapng

Exit codes: 0 done, 1 it failed, 2 a flag or setting is wrong, 3 no agent answers.";

/// The end of each command's manual page, and of [`EXAMPLES`].
pub(super) const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 it failed, 2 a flag or setting is wrong, 3 no agent answers.";
