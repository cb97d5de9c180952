//! Which backend a flow has or would get: the programs themselves say so in a dry run, and the maps say why.

mod maps;

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use aya::{
    Pod,
    maps::{HashMap, MapError},
};
use lb_common::{
    Addr4, Addr6, Be16, DryRun, Flow, FlowKey, Reason, Service, ServiceKey, SourceKey, addr_flag,
    is_refused, opening, service_flag,
};

use super::{
    Sizes,
    flows::FlowTables,
    kernel::take,
    live::{HasTables, Known},
    object::Globals,
};
use crate::look::{Explanation, Question, Refusal, Whose};
use maps::Maps;

/// Everything that a dry run is made of; nothing is loaded between questions.
#[derive(Clone, Debug)]
pub struct Explainer {
    pub(super) pin_dir: PathBuf,
    pub(super) sizes: Sizes,
    pub(super) globals: Globals,
}

/// The maps of a family.
trait Family: Known + Default + Pod {
    const ADDRS: &str;
    const SERVICES: &str;
    const LISTS: &str;
    const SOURCES: &str;
    const VERSION: u8;
}

impl Family for Addr4 {
    const ADDRS: &str = "LB_ADDRS4";
    const SERVICES: &str = "LB_SERVICES4";
    const LISTS: &str = "LB_LISTS4";
    const SOURCES: &str = "LB_SOURCES4";
    const VERSION: u8 = 4;
}

impl Family for Addr6 {
    const ADDRS: &str = "LB_ADDRS6";
    const SERVICES: &str = "LB_SERVICES6";
    const LISTS: &str = "LB_LISTS6";
    const SOURCES: &str = "LB_SOURCES6";
    const VERSION: u8 = 6;
}

// === impl Explainer ===

impl Explainer {
    /// What becomes of a flow; names are left out. Nothing is opened, counted or moved. Loads a program, which takes
    /// some tenths of a second; blocks.
    ///
    /// # Errors
    ///
    /// If a map cannot be read or the dry run not made.
    pub fn explain(&self, tables: &FlowTables, question: &Question) -> Result<Explanation> {
        let Question { client, vip, .. } = question;
        match (client.ip(), vip.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                self.family::<Addr4>(question, tables, src.into(), dst.into())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                self.family::<Addr6>(question, tables, src.into(), dst.into())
            }
            _ => bail!("client and VIP are of different families"),
        }
    }

    fn family<A: Family>(
        &self,
        question: &Question,
        tables: &FlowTables,
        src: A,
        dst: A,
    ) -> Result<Explanation>
    where
        ServiceKey<A>: Pod,
        SourceKey<A>: Pod,
        FlowKey<A>: Pod,
        Flow<A>: Pod,
        FlowTables: HasTables<A>,
    {
        let mut maps = Maps::load(self)?;
        let flags = found(take::<HashMap<_, A, u32>>(&mut maps.object, A::ADDRS)?.get(&dst, 0))?;
        let flags = flags.unwrap_or(0);
        let whose = match flags {
            _ if flags & addr_flag::VIP != 0 => Whose::Vip,
            0 => Whose::Foreign,
            _ => Whose::Node,
        };
        let mut told = Explanation::of(question, whose);
        let proto = question.protocol.number();
        let services: HashMap<_, ServiceKey<A>, Service> = take(&mut maps.object, A::SERVICES)?;
        let key = ServiceKey {
            addr: dst,
            port: Be16::new(question.vip.port()),
            proto,
            pad: 0,
        };
        let service = found(services.get(&key, 0))?;
        if let Some(service) = &service {
            told.service = Some(maps.view(service)?);
            told.backends = maps.candidates(service)?;
        }
        if question.local {
            match &service {
                Some(service) => maps.local(service, proto, src, &mut told)?,
                None if whose == Whose::Vip => {
                    told.refused = Some(refusal(Reason::SockNoService, true));
                }
                None => {}
            }
            return Ok(told);
        }
        if let Some(service) = &service {
            told.source = Some(maps.source(service, src)?);
        }
        let flow_key = FlowKey {
            src,
            dst,
            sport: Be16::new(question.client.port()),
            dport: key.port,
            proto: u32::from(proto),
        };
        let fails_open = service.is_some_and(|s| s.flags & service_flag::FAIL_OPEN != 0);
        if let Some((flow, lost)) = tables.find(&flow_key, fails_open)? {
            told.flow = Some(flow);
            told.lost = lost;
            if told.lost.is_none() {
                return Ok(told);
            }
        }
        let asked = DryRun {
            src: src.widen(),
            dst: dst.widen(),
            sport: flow_key.sport,
            dport: flow_key.dport,
            proto,
            family: A::VERSION,
            ..DryRun::default()
        };
        let (verdict, run) = maps.run(asked)?;
        match (verdict, &service) {
            (opening::OPENED | opening::HALF_OPEN, Some(service)) => {
                told.choice = Some(maps.choice(service, &run)?);
            }
            (opening::NOT_OURS, _) => {}
            (number, _) => {
                let reason = Reason::ALL.get(number as usize);
                let reason = reason.with_context(|| format!("the dry run ended with {number}"))?;
                told.refused = Some(refusal(*reason, false));
            }
        }
        Ok(told)
    }
}

/// `local`: of a process, which always hears of it.
fn refusal(reason: Reason, local: bool) -> Refusal {
    let then = if local || is_refused(reason as u32) {
        "refused: the client is told at once"
    } else {
        "dropped: the client hears nothing and sends again"
    };
    Refusal {
        reason: reason.as_str().to_owned(),
        then: then.to_owned(),
    }
}

fn found<T>(outcome: Result<T, MapError>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
