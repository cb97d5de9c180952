//! Services from a YAML file, or from all `*.yaml` files of a directory, read again whenever they change.
//!
//! ```yaml
//! services:
//!   - name: /dcos-101/app2     # or `address: 10.1.2.3` / `address: fd01:c::1` for an IP VIP
//!     framework: file          # name space of the name; `file` if absent
//!     port: 10000              # the VIP's port, 1-65535
//!     protocol: tcp            # tcp (if absent), udp, or [tcp, udp]
//!     balance: least-conn      # and mode, affinity, max-flows, rate, source-rate, idle, allow, deny
//!     backends:
//!       - 10.0.1.5:28543
//!       - { address: "[fd01:b::2]:8080", weight: 0, name: task-1 }   # and max-flows, backup, zone
//! ```
//!
//! Unknown keys are errors. A service or a backend with a wrong value costs only itself; a file that
//! cannot be read as a whole leaves its services as they were. `docs/file.md` tells of every key, and
//! [`JSON_SCHEMA`] of what may stand where.

mod check;
mod node;
mod reading;
mod schema;
#[cfg(test)]
mod tests;
mod watch;

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use tokio::sync::mpsc;

pub use self::check::{Checked, check};
pub use self::schema::{JSON_SCHEMA, Reading, parse, read_all};

use super::{Asked, ProviderId, Update};

/// What is read where no file is given: a commented example without services.
pub const DEFAULT_SERVICES: &str = include_str!("default.yaml");

/// Sends an [`Update`] for every reading of `path`; without one a single update with
/// [`DEFAULT_SERVICES`]. Ends when `tx` is closed. The provider is called `file:<path>`, or
/// `file:default`.
pub async fn run(path: Option<PathBuf>, tx: mpsc::Sender<Update>, asked: Asked) {
    if let Some(path) = path {
        return watch::watch(&path, &tx, asked, watch::Timings::default()).await;
    }
    let outcome = parse(DEFAULT_SERVICES, "default".as_ref()).map(Arc::new);
    let provider = ProviderId::new("file", "default");
    _ = tx
        .send(Update {
            provider,
            at: SystemTime::now(),
            outcome,
        })
        .await;
    tx.closed().await;
}
