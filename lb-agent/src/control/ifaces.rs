//! Interfaces that go and come back, as a tap does with its virtual machine: they have another index then.

use tracing::info;

use super::Control;
use crate::{datapath::Interface, preflight};

impl Control {
    /// Has the programs at the operator's interfaces as they are now, and says which are not there.
    pub(super) async fn follow_interfaces(&mut self, failures: &mut Vec<String>) {
        let mut there = Vec::new();
        for name in &self.node.ifaces {
            // Asked for each: a list of all may lack one while others come and go.
            match preflight::interface_index(name) {
                Some(index) => there.push(Interface {
                    name: name.clone(),
                    index,
                }),
                None => failures.push(format!(
                    "interface {name} is gone: who comes by it is not served until it is back"
                )),
            }
        }
        let before = self.datapath.interfaces().to_vec();
        let moved = there != before;
        // A comparison puts back what somebody took off.
        if !moved && !self.comparing {
            return;
        }
        if let Err(error) = self.datapath.set_interfaces(there) {
            failures.push(format!("{error:#}"));
            return;
        }
        if !moved {
            return;
        }
        for Interface { name, index } in self.datapath.interfaces() {
            if !before.iter().any(|iface| iface.index == *index) {
                info!(interface = %name, index, "attached to an interface that is back");
            }
        }
        self.ports = self.datapath.ports();
        self.hops.set_ports(&self.ports, &self.topology);
        self.look_at_neighbours().await;
    }
}
