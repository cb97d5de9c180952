//! Whoever has a say about backends besides the catalog: checks, the operator, and how long they have been up or about
//! to end.

use std::{
    collections::BTreeSet,
    future::pending,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    ending::Ending,
    operator::{Member, Operator},
    slow::SlowStart,
    standing::{Since, Voices, known_down, ours, targets},
};
use crate::{
    admin::{
        orders::{Act, Obeyed, Order, Ordered},
        report::{OperatorReport, Timestamp},
        stats::Event,
    },
    catalog::Desired,
    config::Config,
    health::{Latests, Monitor, Verdicts},
    plan::{KernelState, Reach, Wanted},
    provider::etcd::{Nodes, OwnDrain},
};

/// Orders that may wait.
const ORDERS: usize = 16;

/// All of them, on the control loop's side.
pub(super) struct Judges {
    health: Monitor,
    operator: Operator,
    slow: SlowStart,
    ending: Ending,
    pub(super) since: Since,
    orders: mpsc::Receiver<Ordered>,
    /// What the checks say, as of the last look.
    verdicts: Option<Arc<Verdicts>>,
    /// The moment of the last look.
    at: (Timestamp, Instant),
}

// === impl Judges ===

impl Judges {
    /// Starts the checks; `have`: what an agent before this one left. Orders are sent to what it gives besides.
    pub(super) fn start(
        config: &Config,
        have: &KernelState,
        stop: &CancellationToken,
    ) -> Result<(Self, mpsc::Sender<Ordered>)> {
        let health = Monitor::start(config.checks as usize, known_down(have), stop);
        let (sender, orders) = mpsc::channel(ORDERS);
        let judges = Self {
            verdicts: health.verdicts(),
            health,
            operator: Operator::load(&config.paths.state_dir)?,
            slow: SlowStart::default(),
            ending: Ending::default(),
            since: Since::default(),
            orders,
            at: (Timestamp::now(), Instant::now()),
        };
        Ok((judges, sender))
    }

    /// Waits until somebody says something new; an order is to be obeyed. What was not taken is not lost.
    pub(super) async fn news(&mut self, desired: &Desired) -> Option<Ordered> {
        let Self {
            health,
            operator,
            slow,
            ending,
            orders,
            ..
        } = self;
        let now = (Timestamp::now(), Instant::now());
        let step = slow.next_step(|key| desired.services.get(key), now.1);
        let deadline = operator.next_deadline(now.0);
        let deadline = deadline.map(|deadline| now.1 + deadline.since(now.0));
        let end = ending.next(|key| desired.services.get(key), now.1);
        let next = [step, deadline, end].into_iter().flatten().min();
        let clock = async {
            match next {
                // Just after it: the moment itself is still before the change.
                Some(next) => {
                    tokio::time::sleep_until((next + Duration::from_millis(1)).into()).await
                }
                None => pending().await,
            }
        };
        tokio::select! {
            Some(ordered) = orders.recv() => Some(ordered),
            () = health.changed() => None,
            () = clock => None,
        }
    }

    /// Puts the operator's own servers among the others.
    pub(super) fn place_servers(&self, desired: &mut Desired) {
        self.operator.place_servers(desired);
    }

    /// Carries an order out.
    pub(super) fn obey(&mut self, order: &Order, desired: &Desired) -> Obeyed {
        if order.act == Act::Checks(false) {
            let down: Vec<_> = self.voices().down(desired).collect();
            self.operator.know_down(down.into_iter());
        }
        let obeyed = self.operator.obey(order, desired, Timestamp::now());
        if obeyed.is_ok() {
            self.tell(order);
        }
        obeyed
    }

    /// The backends that an order to reset is about.
    pub(super) fn to_reset(
        &self,
        order: &Order,
        desired: &Desired,
    ) -> Result<BTreeSet<Member>, String> {
        let meant = self.operator.meant(&order.which, desired);
        if meant.is_ok() {
            self.tell(order);
        }
        meant
    }

    /// To whoever looks at the latest changes; the log hears of it from those who know who gave it.
    fn tell(&self, order: &Order) {
        self.since.events.push(Event {
            what: "the operator's order".to_owned(),
            service: order.which.service.clone(),
            to: Some(order.act.to_string()),
            reason: order.which.to_string(),
            ..Event::default()
        });
    }

    /// Looks again at what all of them say, before the maps are planned. `reach`: how an address is reached.
    pub(super) fn look(&mut self, desired: &Desired, mut reach: impl FnMut(IpAddr) -> Reach) {
        self.verdicts = self.health.verdicts();
        self.at = (Timestamp::now(), Instant::now());
        let backends = desired
            .services
            .values()
            .flat_map(|service| &service.backends);
        let addrs: BTreeSet<IpAddr> = backends.map(|backend| backend.addr.ip()).collect();
        let local = |addr: &IpAddr| !matches!(reach(*addr), Reach::Net { .. });
        self.operator
            .know_locals(addrs.into_iter().filter(local).collect());
        self.ending.note(desired.services.iter(), self.at.1);
        let mut slow = std::mem::take(&mut self.slow);
        let voices = self.voices();
        slow.note(
            desired.services.iter(),
            |key, service, index| {
                let backend = service.backends.get(index);
                backend.is_some_and(|backend| voices.standing(key, service, backend).takes_flows())
            },
            self.at.1,
        );
        self.slow = slow;
    }

    /// Addresses of backends that are on this node, as of the last look.
    pub(super) fn locals(&self) -> &Arc<BTreeSet<IpAddr>> {
        self.operator.locals()
    }

    /// Says which nodes drain, in their own words.
    pub(super) fn know_drained(&mut self, nodes: Arc<Nodes>) {
        self.operator.know_drained(nodes);
    }

    /// What other nodes are to know of this one; `partial`: not all of its backends are known yet.
    pub(super) fn own_drain(&self, partial: bool) -> OwnDrain {
        OwnDrain {
            drained: self.operator.own_drain(),
            partial,
        }
    }

    /// What they say, as of the last look.
    pub(super) fn voices(&self) -> Voices<'_> {
        Voices {
            verdicts: self.verdicts.as_deref(),
            operator: Some(&self.operator),
            slow: Some(&self.slow),
            ending: Some(&self.ending),
            at: self.at,
        }
    }

    /// What they say, and since when.
    pub(super) fn voices_and_since(&mut self) -> (Voices<'_>, &mut Since) {
        let voices = Voices {
            verdicts: self.verdicts.as_deref(),
            operator: Some(&self.operator),
            slow: Some(&self.slow),
            ending: Some(&self.ending),
            at: self.at,
        };
        (voices, &mut self.since)
    }

    /// Has checks follow what is wanted now, and beware of what the kernel programs are about to translate.
    pub(super) fn follow(&self, desired: &Desired, want: &Wanted) {
        self.health.beware(ours(want));
        self.health.follow(targets(desired, &self.operator));
    }

    /// Forgets words of the operator that have long been about nobody.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn turn_over(&mut self, desired: &Desired) -> Result<()> {
        if desired.waiting.is_empty() {
            self.operator.turn_over(desired, Timestamp::now())?;
        }
        Ok(())
    }

    /// What the latest checks came to.
    pub(super) fn latests(&self) -> Arc<Latests> {
        self.health.latests()
    }

    /// For `status`.
    pub(super) fn report(&self) -> Vec<OperatorReport> {
        self.operator.report()
    }
}
