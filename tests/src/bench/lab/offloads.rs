//! Offloads of every device of the lab: the same for all ways.
//!
//! Checksum offload is off throughout: XDP on a veth would get, and send on, unfinished checksums. (A NIC's
//! driver has them finished before XDP.) GRO is on in name, since without it a veth has no NAPI and does not
//! take what XDP sends; a `gro_max_size` of one byte keeps it from joining anything.

use anyhow::{Context as _, Result, ensure};

use crate::lab::{
    Host, UPLINK,
    exec::{ip_batch, tool_in},
};

/// What the devices do for the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// Nothing: checksums by the stack, every packet by itself.
    Off,
    /// Segments are split late (GSO, in software) and joined early (GRO).
    Segments,
}

/// The kernel's default, bytes.
const GRO_MAX: u32 = 65_536;

/// Names in `ethtool -k`, and the letters that `ethtool -K` takes.
const FEATURES: [(&str, &str); 4] = [
    ("tx-checksumming", "tx"),
    ("tcp-segmentation-offload", "tso"),
    ("generic-segmentation-offload", "gso"),
    ("generic-receive-offload", "gro"),
];

// === impl Offloads ===

impl Offloads {
    /// How it is called in a case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "no offloads",
            Self::Segments => "GSO and GRO",
        }
    }

    /// On or off, in the order of [`FEATURES`].
    fn wanted(self) -> [bool; 4] {
        match self {
            Self::Off => [false, false, false, true],
            Self::Segments => [false, false, true, true],
        }
    }

    /// Sets both ends of a host's cable, reads them back, and says how they are.
    pub(super) fn set(self, switch: &str, host: &Host) -> Result<String> {
        let mut said = None;
        for (netns, device) in [(switch, host.name()), (host.netns().name(), UPLINK)] {
            let now = self
                .set_device(netns, device)
                .with_context(|| format!("{device} of {}", host.name()))?;
            let same = said.get_or_insert_with(|| now.clone());
            ensure!(*same == now, "{}: {now}, its port: {same}", host.name());
        }
        said.context("no device")
    }

    fn set_device(self, netns: &str, device: &str) -> Result<String> {
        let mut argv = vec!["ethtool", "-K", device];
        for ((_, letter), on) in FEATURES.iter().zip(self.wanted()) {
            argv.extend([*letter, if on { "on" } else { "off" }]);
        }
        tool_in(netns, &argv)?;
        let joins = self == Self::Segments;
        let most = if joins { GRO_MAX } else { 1 };
        ip_batch(
            netns,
            &format!("link set dev {device} gro_max_size {most}\n"),
        )?;
        let shown = tool_in(netns, &["ethtool", "-k", device])?;
        let mut words = Vec::new();
        for ((name, letter), on) in FEATURES.iter().zip(self.wanted()) {
            let line = shown
                .lines()
                .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
            let line = line.with_context(|| format!("ethtool does not show {name}"))?;
            ensure!(
                line.starts_with(if on { "on" } else { "off" }),
                "{name} cannot be set: {line}"
            );
            words.push(format!("{letter} {}", if on { "on" } else { "off" }));
        }
        words.push(format!("gro_max_size {most}"));
        Ok(words.join(", "))
    }
}
