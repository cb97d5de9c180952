//! Nodes that drain: what others are to know of this one, and what they say of themselves.

use std::{net::IpAddr, sync::Arc};

use super::{Operator, Out, Said};
use crate::{
    admin::report::{OperatorReport, Timestamp},
    provider::etcd::{Drained, Nodes},
};

// === impl Operator ===

impl Operator {
    /// Says which nodes drain.
    pub(in crate::control) fn know_drained(&mut self, nodes: Arc<Nodes>) {
        self.drained = nodes;
    }

    /// Who has taken out whatever listens at this address, and how. What is on this node is nobody else's to take out:
    /// containers of two nodes may have one address.
    pub(in crate::control) fn drained_by(&self, addr: IpAddr) -> Option<(&str, Out)> {
        let elsewhere = !self.drained.is_empty() && !self.locals.contains(&addr);
        let mut nodes = self.drained.iter().filter(|_| elsewhere);
        let (node, drained) = nodes.find(|(_, drained)| drained.addresses.contains(&addr))?;
        Some((node, out(drained)))
    }

    /// Whether this node drains, for all others.
    pub(in crate::control) fn own_drain(&self) -> Option<Drained> {
        let mut words = self.words.iter();
        let of_node = |which: &super::Which| which.backend.is_none() && which.service.is_none();
        let word = words.find(|word| of_node(&word.which))?;
        let Out {
            maintenance,
            deadline,
        } = word.out?;
        Some(Drained {
            since: word.since.0,
            maintenance,
            deadline: deadline.map(|deadline| deadline.0),
            addresses: (*self.locals).clone(),
        })
    }

    pub(super) fn deadlines_of_nodes(&self) -> impl Iterator<Item = Timestamp> {
        let nodes = self.drained.values();
        nodes.filter_map(|drained| drained.deadline.map(Timestamp))
    }

    /// Those of others: what this node says of itself is among its own words.
    pub(super) fn report_of_nodes(&self) -> impl Iterator<Item = OperatorReport> {
        let nodes = self.drained.iter();
        let others = nodes.filter(|(_, drained)| !drained.addresses.is_subset(&self.locals));
        others.map(|(node, drained)| OperatorReport {
            which: format!("the backends of {node}, by its own operator"),
            says: Said {
                out: Some(out(drained)),
                ..Said::default()
            }
            .in_words(),
            since: Timestamp(drained.since),
            deadline: drained.deadline.map(Timestamp),
            unused_since: None,
            server: None,
        })
    }
}

fn out(drained: &Drained) -> Out {
    Out {
        maintenance: drained.maintenance,
        deadline: drained.deadline.map(Timestamp),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        admin::orders::{Act, Order, Which},
        catalog::Desired,
    };

    fn addrs(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn node_order(act: Act, deadline: Option<u64>) -> Order {
        let which = Which {
            backend: None,
            service: None,
        };
        Order {
            act,
            which,
            deadline,
        }
    }

    #[test]
    fn what_the_operator_says_of_the_node_is_for_all_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut operator = Operator::load(dir.path()).unwrap();
        operator.know_locals(addrs(&["10.0.0.1", "172.17.0.2"]));
        let desired = Desired::default();
        assert_eq!(operator.own_drain(), None);
        let order = node_order(Act::Maintenance, Some(60));
        operator.obey(&order, &desired, Timestamp(1_000)).unwrap();
        let expected = Drained {
            since: 1_000,
            maintenance: true,
            deadline: Some(61_000),
            addresses: addrs(&["10.0.0.1", "172.17.0.2"]),
        };
        assert_eq!(operator.own_drain(), Some(expected));
        let order = node_order(Act::Ready, None);
        operator.obey(&order, &desired, Timestamp(2_000)).unwrap();
        assert_eq!(operator.own_drain(), None);
    }

    #[test]
    fn another_node_takes_out_its_own_backends_and_none_of_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut operator = Operator::load(dir.path()).unwrap();
        operator.know_locals(addrs(&["10.0.0.1", "172.17.0.2"]));
        let other = Drained {
            since: 1_000,
            deadline: Some(5_000),
            addresses: addrs(&["10.0.0.2", "172.17.0.2"]),
            ..Drained::default()
        };
        let own = Drained {
            addresses: addrs(&["10.0.0.1"]),
            ..Drained::default()
        };
        let nodes = [("n1".to_owned(), own), ("n2".to_owned(), other)];
        operator.know_drained(Arc::new(nodes.into()));
        let by = |addr: &str| operator.drained_by(addr.parse().unwrap());
        let (node, out) = by("10.0.0.2").unwrap();
        assert_eq!((node, out.maintenance), ("n2", false));
        assert!(out.is_over(Timestamp(5_000)) && !out.is_over(Timestamp(4_999)));
        assert_eq!(
            by("172.17.0.2"),
            None,
            "it is a container of this node, too"
        );
        assert_eq!(by("10.0.0.1"), None);
        assert_eq!(by("10.0.0.3"), None);
        let deadline = operator.next_deadline(Timestamp(2_000));
        assert_eq!(deadline, Some(Timestamp(5_000)));
        let shown: Vec<_> = operator.report();
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(shown[0].which.contains("n2") && shown[0].says == "draining");
    }
}
