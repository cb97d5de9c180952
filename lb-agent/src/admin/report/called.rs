//! By which words a service is meant.

use std::net::SocketAddr;

use super::ServiceReport;
use crate::admin::vips::ZONE;

impl ServiceReport {
    /// Whether `text` means this service: its name, with the zone or without, or one of its addresses; each alone,
    /// with `:PORT`, or with `:PORT/PROTOCOL`. Names are compared without regard to case (RFC 4343).
    pub fn is_called(&self, text: &str) -> bool {
        let (port, protocol) = (self.port.get(), self.protocol.as_str());
        let with_port = |bare: &str| {
            let rest = text.get(bare.len()..).unwrap_or_default();
            let begins = text
                .get(..bare.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(bare));
            begins
                && (rest.is_empty()
                    || rest == format!(":{port}")
                    || rest == format!(":{port}/{protocol}"))
        };
        let by_name = self.name.as_deref().is_some_and(|name| {
            with_port(name)
                || with_port(&format!("{name}.{ZONE}"))
                || with_port(&format!("{name}.{ZONE}."))
        });
        let by_addr = |addr: &std::net::IpAddr| {
            let at = SocketAddr::new(*addr, port).to_string();
            text == addr.to_string() || text == at || text == format!("{at}/{protocol}")
        };
        by_name || self.addrs.iter().any(by_addr)
    }
}

#[cfg(test)]
mod tests {
    use crate::admin::stats::tests::service;

    #[test]
    fn a_service_is_known_by_all_its_names_and_no_other() {
        let mut web = service(Some("web.x"), 7, Vec::new());
        web.addrs = ["11.0.0.7", "fd01:c::7"]
            .map(|addr| addr.parse().unwrap())
            .into();
        for text in [
            "web.x",
            "WEB.x",
            "web.x:80",
            "web.x:80/tcp",
            "web.x.l4lb.thisdcos.directory",
            "web.x.l4lb.thisdcos.directory.",
            "web.x.l4lb.thisdcos.directory:80/tcp",
            "11.0.0.7",
            "11.0.0.7:80",
            "11.0.0.7:80/tcp",
            "fd01:c::7",
            "[fd01:c::7]:80",
            "[fd01:c::7]:80/tcp",
        ] {
            assert!(web.is_called(text), "{text}");
        }
        for text in [
            "",
            "web",
            "web.x.",
            "web.x:8",
            "web.x:800",
            "web.x:80/udp",
            "web.xy",
            "web.x80",
            "é",
            "11.0.0.70",
            "11.0.0.7:81",
            "fd01:c::7:80",
        ] {
            assert!(!web.is_called(text), "{text}");
        }
    }
}
