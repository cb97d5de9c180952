//! What one question reads of the maps, and the dry run itself.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use lb_common::{
    Addr6, Affinity, AffinityKey, Backend, BackendLimit, Be16, Bucket, DryRun, Reason, SLOTS_LARGE,
    SLOTS_MEDIUM, SLOTS_SMALL, SOURCE_BITS, Service, ServiceState, SourceKey, Suspect, algorithm,
    flow_hash, headers::TCP, service_flag, source_rule, turn_hash,
};

use super::{Explainer, Family, found, refusal};
use crate::{
    datapath::{
        arrays::Tables,
        flows::now,
        kernel::take,
        object::{self, EXPLAIN},
        sys,
    },
    look::{
        Candidate, Choice, Explanation, Passed, ServiceView, SourceView, Way,
        walk::{Filled, Walk, obstacle, state, walk},
    },
    plan::{Endpoint, algorithm_name, mode_name},
};

/// The maps that one question needs.
pub(super) struct Maps {
    pub(super) object: Ebpf,
    backends: Array<MapData, Backend>,
    limits: Array<MapData, BackendLimit>,
    loads: Array<MapData, u64>,
    states: Array<MapData, ServiceState>,
    affinity: HashMap<MapData, AffinityKey, Affinity>,
    suspects: Array<MapData, Suspect>,
}

// === impl Maps ===

impl Maps {
    pub(super) fn load(explainer: &Explainer) -> Result<Self> {
        let Explainer {
            pin_dir,
            sizes,
            globals,
        } = explainer;
        let mut object = object::dry_run(pin_dir, sizes, *globals)?;
        Ok(Self {
            backends: take(&mut object, "LB_BACKENDS")?,
            limits: take(&mut object, "LB_LIMITS")?,
            loads: take(&mut object, "LB_LOADS")?,
            states: take(&mut object, "LB_SERVICE_STATES")?,
            affinity: take(&mut object, "LB_AFFINITY")?,
            suspects: take(&mut object, "LB_SUSPECTS")?,
            object,
        })
    }

    /// Lets the program open the flow, for show.
    pub(super) fn run(&mut self, asked: DryRun) -> Result<(u32, DryRun)> {
        /// An Ethernet header, which the kernel wants every test packet to have.
        const FRAME: [u8; 64] = [0; 64];
        let mut map: Array<_, DryRun> = take(&mut self.object, "LB_DRY_RUN")?;
        map.set(0, asked, 0)?;
        let program: &mut Xdp = self
            .object
            .program_mut(EXPLAIN)
            .with_context(|| format!("there is no program {EXPLAIN}"))?
            .try_into()?;
        let options = TestRunOptions {
            data_in: Some(&FRAME),
            ..TestRunOptions::new()
        };
        let ended = program
            .test_run(options)
            .context("the dry run was refused by the kernel")?;
        Ok((ended.return_value, map.get(&0, 0)?))
    }

    pub(super) fn view(&self, service: &Service) -> Result<ServiceView> {
        Ok(ServiceView {
            name: None,
            id: service.id,
            algorithm: algorithm_name(service.algorithm).to_owned(),
            mode: mode_name(service.mode).to_owned(),
            slots: service.slots,
            affinity_s: service.affinity,
            flows: self.states.get(&service.id, 0)?.flows,
            max_flows: service.max_flows,
            fail_open: service.flags & service_flag::FAIL_OPEN != 0,
        })
    }

    /// As `admit` and `open` ask of the client.
    pub(super) fn source<A: Family>(&mut self, service: &Service, src: A) -> Result<SourceView>
    where
        SourceKey<A>: Pod,
    {
        let said = |allowed, why: &str| {
            Ok(SourceView {
                allowed,
                why: why.to_owned(),
            })
        };
        if let Some(why) = self.kept_out(service, src)? {
            return said(false, why);
        }
        if service.flags & service_flag::EXTERNAL != 0 {
            return said(true, "the service is open to the outside");
        }
        let sources: LpmTrie<_, A, u32> = take(&mut self.object, A::SOURCES)?;
        match found(sources.get(&Key::new(A::WORDS as u32 * 32, src), 0))? {
            Some(_) => said(true, "it is within --outside-allow or a connected prefix"),
            None => said(
                false,
                "it is not within --outside-allow, or a connected prefix where that is not given",
            ),
        }
    }

    /// Why the lists of the service keep this source out, if they do.
    fn kept_out<A: Family>(&mut self, service: &Service, src: A) -> Result<Option<&'static str>>
    where
        SourceKey<A>: Pod,
    {
        let listed = service_flag::ALLOW_LISTED | service_flag::DENY_LISTED;
        if service.flags & listed == 0 {
            return Ok(None);
        }
        let lists: LpmTrie<_, SourceKey<A>, u32> = take(&mut self.object, A::LISTS)?;
        let key = SourceKey {
            service: service.id,
            addr: src,
        };
        let bits = SOURCE_BITS + A::WORDS as u32 * 32;
        Ok(match found(lists.get(&Key::new(bits, key), 0))? {
            Some(source_rule::ALLOW) => None,
            Some(_) => Some("the service denies it"),
            None if service.flags & service_flag::ALLOW_LISTED != 0 => {
                Some("it is not among those that the service allows")
            }
            None => None,
        })
    }

    /// The limit that a new flow of a local client would be beyond, as `admit` finds it.
    fn beyond(&mut self, service: &Service, client: &AffinityKey) -> Result<Option<Reason>> {
        let state = self.states.get(&service.id, 0)?;
        if service.max_flows != 0 && state.flows >= u64::from(service.max_flows) {
            return Ok(Some(Reason::ServiceFull));
        }
        let has_token = |mut bucket: Bucket, rate| {
            bucket.refill(rate, now());
            bucket.take()
        };
        let rates: HashMap<_, AffinityKey, Bucket> = take(&mut self.object, "LB_SOURCE_RATES")?;
        let own = found(rates.get(client, 0))?.unwrap_or_default();
        if service.source_rate != 0 && !has_token(own, service.source_rate) {
            return Ok(Some(Reason::SourceRate));
        }
        let spent = service.rate != 0 && !has_token(state.bucket, service.rate);
        Ok(spent.then_some(Reason::ServiceRate))
    }

    /// The dry run's answer with its reasons.
    pub(super) fn choice(&self, service: &Service, run: &DryRun) -> Result<Choice> {
        let id = run.backend;
        let again = run.again != 0;
        let by_chance = service.algorithm == algorithm::LEAST_CONN;
        let walked = if again || by_chance {
            Walk::default()
        } else {
            self.walk(service, run.hash)?
        };
        let slot = walked
            .end
            .filter(|(_, end)| *end == id)
            .map(|(slot, _)| slot);
        let why = match service.algorithm {
            _ if again => "affinity: the client had it last".to_owned(),
            algorithm::LEAST_CONN => self.lighter(id)?,
            algorithm::ROUND_ROBIN => "the slot whose turn it is".to_owned(),
            algorithm::SOURCE => "the hash of the client's address".to_owned(),
            _ => "the hash of the client's address and of both ports".to_owned(),
        };
        Ok(Choice {
            backend: self.at(id)?.context("the backend has gone meanwhile")?,
            how: Some(Way::of(run.kind)),
            why,
            certain: again || !by_chance && service.algorithm != algorithm::ROUND_ROBIN,
            slot,
            passed_over: if slot.is_some() {
                self.passed(walked)?
            } else {
                Vec::new()
            },
        })
    }

    fn lighter(&self, id: u32) -> Result<String> {
        let (flows, limit) = (self.loads.get(&id, 0)?, self.limits.get(&id, 0)?);
        Ok(format!(
            "of two drawn at random the one with fewer flows for its weight: {flows} at weight {}",
            limit.weight
        ))
    }

    /// What the socket path would do for a process in the agent's network namespace that speaks from `src`.
    pub(super) fn local<A: Family>(
        &mut self,
        service: &Service,
        proto: u8,
        src: A,
        told: &mut Explanation,
    ) -> Result<()>
    where
        SourceKey<A>: Pod,
    {
        let netns = sys::netns_cookie().context("cannot read the network namespace's cookie")?;
        let client = AffinityKey {
            client: Addr6([netns as u32, (netns >> 32) as u32, 0, 0]),
            service: service.id,
            family: 0,
        };
        let kept_out = self.kept_out(service, src)?;
        told.source = Some(SourceView {
            allowed: kept_out.is_none(),
            why: kept_out.unwrap_or("a process of this node").to_owned(),
        });
        let beyond = match kept_out {
            Some(_) => Some(Reason::SourceNotAllowed),
            None => self.beyond(service, &client)?,
        };
        if let Some(reason) = beyond {
            told.refused = Some(refusal(reason, true));
            return Ok(());
        }
        let fails_open = service.flags & service_flag::FAIL_OPEN != 0;
        if let Some(id) = self.remembered(service, &client, fails_open)? {
            told.choice = Some(Choice {
                backend: self.at(id)?.context("the backend has gone meanwhile")?,
                how: None,
                why: "affinity: this network namespace had it last".to_owned(),
                certain: true,
                slot: None,
                passed_over: Vec::new(),
            });
            return Ok(());
        }
        // `None`: chance. Whoever takes flows may get it; one walk tells whether there is anybody.
        let (hash, why) = match service.algorithm {
            algorithm::SOURCE => {
                let hash = flow_hash(&client.client, Be16(0), Be16(0), 0);
                (Some(hash), "the hash of the agent's network namespace")
            }
            algorithm::ROUND_ROBIN => {
                let turn = self.states.get(&service.id, 0)?.turn as u32;
                let hash = turn_hash(turn, service.slots);
                (Some(hash), "the slot whose turn it is")
            }
            algorithm::LEAST_CONN => (
                None,
                "of two drawn at random the one with fewer flows for its weight",
            ),
            _ if proto == TCP => (None, "a slot drawn at random"),
            _ => (None, "the slot of the socket's cookie"),
        };
        let walked = self.walk(service, hash.unwrap_or_default())?;
        let Some((slot, id)) = walked.end else {
            told.refused = Some(refusal(Reason::SockNoBackend, true));
            return Ok(());
        };
        told.choice = Some(Choice {
            backend: self.at(id)?.context("the backend has gone meanwhile")?,
            how: None,
            why: why.to_owned(),
            certain: service.algorithm == algorithm::SOURCE,
            slot: hash.map(|_| slot),
            passed_over: match hash {
                Some(_) => self.passed(walked)?,
                None => Vec::new(),
            },
        });
        Ok(())
    }

    fn remembered(
        &self,
        service: &Service,
        client: &AffinityKey,
        fails_open: bool,
    ) -> Result<Option<u32>> {
        if service.affinity == 0 {
            return Ok(None);
        }
        let Some(known) = found(self.affinity.get(client, 0))? else {
            return Ok(None);
        };
        let filled = self.filled(known.backend);
        let fresh = now().saturating_sub(known.last_used)
            <= u64::from(service.affinity).saturating_mul(1_000_000_000);
        let takes = filled.backend.generation == known.generation
            && obstacle(&filled, fails_open).is_none();
        Ok((fresh && takes).then_some(known.backend))
    }

    fn slots(&self, service: &Service) -> Result<Vec<u32>> {
        let (id, object) = (service.id, &self.object);
        let slots = match service.slots as usize {
            SLOTS_SMALL => Tables::<SLOTS_SMALL>::of(object, "LB_TABLES_S")?.slots(id)?,
            SLOTS_MEDIUM => Tables::<SLOTS_MEDIUM>::of(object, "LB_TABLES_M")?.slots(id)?,
            SLOTS_LARGE => Tables::<SLOTS_LARGE>::of(object, "LB_TABLES_L")?.slots(id)?,
            _ => None,
        };
        Ok(slots.unwrap_or_default())
    }

    fn walk(&self, service: &Service, hash: u32) -> Result<Walk> {
        let fails_open = service.flags & service_flag::FAIL_OPEN != 0;
        let slots = self.slots(service)?;
        Ok(walk(&slots, hash, fails_open, |id| self.filled(id)))
    }

    pub(super) fn candidates(&self, service: &Service) -> Result<Vec<Candidate>> {
        let mut shares = BTreeMap::<u32, u32>::new();
        for id in self.slots(service)? {
            *shares.entry(id).or_default() += 1;
        }
        let mut found = Vec::with_capacity(shares.len());
        for (id, slots) in shares {
            let Some(backend) = self.at(id)? else {
                continue;
            };
            let filled = self.filled(id);
            found.push(Candidate {
                backend,
                state: state(filled.backend.state).to_owned(),
                slots,
                flows: filled.flows,
                max_flows: filled.max_flows,
            });
        }
        found.sort_by_key(|one| (std::cmp::Reverse(one.slots), one.backend));
        Ok(found)
    }

    fn passed(&self, walked: Walk) -> Result<Vec<Passed>> {
        let passed = walked.passed.into_iter();
        passed
            .map(|(slot, id, why)| {
                let backend = self.at(id)?;
                Ok(Passed { backend, slot, why })
            })
            .collect()
    }

    /// Of an id that is out of bounds: one that takes nothing.
    fn filled(&self, id: u32) -> Filled {
        let backend = self.backends.get(&id, 0).unwrap_or_default();
        let suspect = self.suspects.get(&id, 0).unwrap_or_default();
        Filled {
            suspect: suspect.is_out(backend.generation, now()),
            backend,
            flows: self.loads.get(&id, 0).unwrap_or_default(),
            max_flows: self.limits.get(&id, 0).unwrap_or_default().max_flows,
        }
    }

    fn at(&self, id: u32) -> Result<Option<SocketAddr>> {
        let backend = Endpoint::of(&self.backends.get(&id, 0)?);
        Ok(backend.map(|at| SocketAddr::new(at.addr, at.port)))
    }
}
