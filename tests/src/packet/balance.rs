//! What the agent would have written about how a service spreads and limits its flows.

use std::net::IpAddr;

use aya::maps::{Array, LpmTrie, lpm_trie::Key};
use ipnet::IpNet;
use lb_common::{
    Addr4, Addr6, Affinity, AffinityKey, BackendLimit, SOURCE_BITS, Service, ServiceState,
    SourceKey, Suspect,
};

use super::{Rig, SERVICE, Way, maps::plain_service};

impl Rig {
    /// Gives the rig's service these properties; id, table and time-outs stay.
    pub fn shape(&mut self, way: Way, slots: usize, with: impl FnOnce(&mut Service)) {
        let mut service = plain_service(SERVICE, 0, slots);
        with(&mut service);
        self.service_value(way, way.vip(1), service);
    }

    /// Sets weight and most flows of a backend; 0: no limit.
    pub fn limit(&mut self, id: u32, weight: u32, max_flows: u32) {
        let mut map: Array<_, BackendLimit> = self.map("LB_LIMITS");
        map.set(id, BackendLimit { max_flows, weight }, 0).unwrap();
    }

    /// How many flows a backend is thought to have.
    pub fn load(&mut self, id: u32) -> u64 {
        let map: Array<_, u64> = self.map("LB_LOADS");
        map.get(&id, 0).unwrap()
    }

    /// Sets how many flows a backend is thought to have.
    pub fn set_load(&mut self, id: u32, flows: u64) {
        let mut map: Array<_, u64> = self.map("LB_LOADS");
        map.set(id, flows, 0).unwrap();
    }

    /// How many flows the rig's service is thought to have.
    pub fn service_load(&mut self) -> u64 {
        let map: Array<_, ServiceState> = self.map("LB_SERVICE_STATES");
        map.get(&SERVICE, 0).unwrap().flows
    }

    /// Sets how many flows the rig's service is thought to have.
    pub fn set_service_load(&mut self, flows: u64) {
        let mut map: Array<_, ServiceState> = self.map("LB_SERVICE_STATES");
        let state = map.get(&SERVICE, 0).unwrap();
        map.set(SERVICE, ServiceState { flows, ..state }, 0)
            .unwrap();
    }

    /// What is known of a backend that does not answer.
    pub fn suspect(&mut self, id: u32) -> Suspect {
        let map: Array<_, Suspect> = self.map("LB_SUSPECTS");
        map.get(&id, 0).unwrap()
    }

    /// Leaves a suspect one for an hour, however slow the test is.
    pub fn hold_suspect(&mut self, id: u32) {
        let mut map: Array<_, Suspect> = self.map("LB_SUSPECTS");
        let mut suspect = map.get(&id, 0).unwrap();
        suspect.until += 3_600_000_000_000;
        map.set(id, suspect, 0).unwrap();
    }

    /// Lets so much time pass for a suspect, ns.
    pub fn age_suspect(&mut self, id: u32, ns: u64) {
        let mut map: Array<_, Suspect> = self.map("LB_SUSPECTS");
        let mut suspect = map.get(&id, 0).unwrap();
        suspect.until = suspect.until.saturating_sub(ns);
        suspect.answered = suspect.answered.saturating_sub(ns);
        map.set(id, suspect, 0).unwrap();
    }

    /// Makes every client's affinity older by so many seconds.
    pub fn age_affinity(&mut self, seconds: u64) {
        let mut map = self.hash::<AffinityKey, Affinity>("LB_AFFINITY");
        let all: Vec<_> = map.iter().map(Result::unwrap).collect();
        for (key, mut value) in all {
            value.last_used -= seconds * 1_000_000_000;
            map.insert(key, value, 0).unwrap();
        }
    }

    /// Puts a prefix into the service's list of sources.
    pub fn list(&mut self, net: IpNet, rule: u32) {
        let bits = SOURCE_BITS + u32::from(net.prefix_len());
        let service = SERVICE;
        match net.addr() {
            IpAddr::V4(addr) => {
                let addr = Addr4::from(addr);
                let mut map: LpmTrie<_, SourceKey<Addr4>, u32> = self.map("LB_LISTS4");
                map.insert(&Key::new(bits, SourceKey { service, addr }), rule, 0)
            }
            IpAddr::V6(addr) => {
                let addr = Addr6::from(addr);
                let mut map: LpmTrie<_, SourceKey<Addr6>, u32> = self.map("LB_LISTS6");
                map.insert(&Key::new(bits, SourceKey { service, addr }), rule, 0)
            }
        }
        .unwrap();
    }
}
