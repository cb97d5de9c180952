//! From what the providers said to what is to be: merged by VIP, bounded by policy, with addresses.

mod aliases;
mod kept;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Catalog, CatalogBackend, Desired, Notice, NoticeKind, Policy, Port, Properties, Protocol,
    Service, ServiceKey,
    backends::{canonical_addr, hosts, merge_backends, unusable},
    policy::{declared, owner},
};
use crate::{
    provider::{Pool, ProviderId, VipHost},
    vip::{AllocError, Allocator, Claim, Family, Owner, VipName},
};

/// One pool of one app.
#[derive(Clone, Copy)]
struct Declaration<'a> {
    provider: &'a ProviderId,
    pool: &'a Pool,
}

/// A declaration of a named VIP.
struct Named<'a> {
    owner: Owner,
    /// As written.
    name: &'a str,
    /// Without leading slashes, in lower case; and the framework, likewise.
    declared: (Arc<str>, Arc<str>),
    declaration: Declaration<'a>,
}

/// A declaration with the properties of the service that it is part of.
type Shaped<'a> = (Declaration<'a>, Arc<Properties>);

/// What is put together, and what was noticed on the way.
struct Resolution<'a> {
    policy: &'a Policy,
    allocator: &'a mut Allocator,
    /// Addresses at which backends or their hosts are.
    hosts: BTreeSet<IpAddr>,
    desired: Desired,
    notices: BTreeSet<Notice>,
}

// === impl Catalog ===

impl Catalog {
    /// The desired state. Names that are new get a lease from `allocator`, whose leases must be on disk
    /// before anybody is told.
    ///
    /// A bad declaration is left out with a notice and harms no other. Depends on nothing but its arguments.
    pub fn resolve(&self, policy: &Policy, allocator: &mut Allocator) -> Desired {
        let mut resolution = Resolution {
            policy,
            allocator,
            hosts: BTreeSet::new(),
            desired: Desired::default(),
            notices: BTreeSet::new(),
        };
        let (named, literal) = resolution.sort_out(self);
        let named = resolution.admit_names(named);
        let literal = resolution.admit_ip_vips(literal);
        resolution.lease(&named, literal.keys().copied());
        for (name, declarations) in &named {
            resolution.serve_name(name, declarations);
        }
        for (&addr, declarations) in &literal {
            resolution.serve_ip_vip(addr, declarations);
        }
        resolution.name_again(self, &named);
        resolution.finish()
    }
}

// === impl Resolution ===

type ByName<'a> = BTreeMap<VipName, Vec<Named<'a>>>;
type ByAddress<'a> = BTreeMap<IpAddr, Vec<Declaration<'a>>>;

impl<'a> Resolution<'a> {
    fn notice(
        &mut self,
        kind: NoticeKind,
        provider: &ProviderId,
        subject: &Arc<str>,
        reason: String,
    ) {
        self.notices.insert(Notice {
            kind,
            provider: provider.clone(),
            subject: subject.clone(),
            reason,
        });
    }

    fn refuse(&mut self, declaration: Declaration<'_>, reason: String) {
        let Declaration { provider, pool } = declaration;
        self.notice(NoticeKind::Refused, provider, &pool.app, reason);
    }

    /// Groups declarations by VIP; names that cannot be DNS names stay out.
    fn sort_out<'c>(&mut self, catalog: &'c Catalog) -> (ByName<'c>, ByAddress<'c>) {
        let (mut named, mut literal) = (ByName::new(), ByAddress::new());
        for (provider, reading) in catalog.readings() {
            let Some(snapshot) = &reading.snapshot else {
                self.desired.waiting.insert(provider.clone());
                continue;
            };
            if snapshot.partial {
                self.desired.waiting.insert(provider.clone());
            }
            for problem in &snapshot.problems {
                let reason = problem.reason.clone();
                self.notice(NoticeKind::LeftOut, provider, &problem.subject, reason);
            }
            for pool in &snapshot.pools {
                if provider.runs_backends() {
                    self.hosts.extend(hosts(pool));
                }
                let groups = pool
                    .properties
                    .as_ref()
                    .map(|properties| &properties.groups);
                if groups.is_some_and(|groups| !self.policy.serves(groups)) {
                    continue;
                }
                let declaration = Declaration { provider, pool };
                match &pool.host {
                    VipHost::Addr(addr) => literal.entry(*addr).or_default().push(declaration),
                    VipHost::Named { name, framework } => match VipName::mangle(name, framework) {
                        Ok(canonical) => named.entry(canonical).or_default().push(Named {
                            owner: owner(provider, &pool.app),
                            name,
                            declared: (declared(name), declared(framework)),
                            declaration,
                        }),
                        Err(error) => {
                            self.refuse(declaration, format!("VIP name {name:?}: {error}"));
                        }
                    },
                }
            }
        }
        (named, literal)
    }

    fn admit_names<'c>(&mut self, named: ByName<'c>) -> ByName<'c> {
        let mut admitted = ByName::new();
        for (canonical, mut declarations) in named {
            // The order of a snapshot is the orchestrator's whim; who is first must not depend on it.
            declarations.sort_by(|a, b| {
                let rank = |named: &Named<'c>| {
                    let app = named.declaration.pool.app.clone();
                    (named.declared.clone(), app, named.name)
                };
                a.owner.cmp(&b.owner).then_with(|| rank(a).cmp(&rank(b)))
            });
            declarations.retain(|named| self.admit_name(&canonical, named));
            if declarations.is_empty() {
                continue;
            }
            self.report_merges(&canonical, &declarations);
            self.report_joins(&canonical, &declarations);
            admitted.insert(canonical, declarations);
        }
        admitted
    }

    /// Whether policy lets the declaration in. The first one claims the name.
    fn admit_name(&mut self, canonical: &VipName, named: &Named<'_>) -> bool {
        let Named {
            owner,
            name,
            declared: (path, _),
            declaration,
        } = named;
        if let Some(reason) = self.policy.refuse_name(&declaration.pool.app, name) {
            self.refuse(*declaration, reason);
            return false;
        }
        let first = Claim {
            owner: owner.clone(),
            declared: path.clone(),
        };
        self.allocator.claim(canonical, first);
        let claim = self
            .allocator
            .leases()
            .get(canonical)
            .and_then(|lease| lease.claim.as_ref());
        match claim.and_then(|claim| self.policy.refuse_against(claim, owner, name)) {
            Some(reason) => {
                self.refuse(*declaration, reason);
                false
            }
            None => true,
        }
    }

    /// Tells of NAMEs that mangling made one. Each is paired with the first, so that a thousand of them are
    /// a thousand lines and not a million.
    fn report_merges(&mut self, canonical: &VipName, declarations: &[Named<'_>]) {
        let variants: BTreeMap<_, _> = declarations
            .iter()
            .rev()
            .map(|named| (&named.declared, named))
            .collect();
        let mut variants = variants.into_values();
        let Some(first) = variants.next() else { return };
        for other in variants {
            let reason = format!(
                "VIP name {} merges with {} of app {}: both are {canonical} in DNS",
                other.name, first.name, first.declaration.pool.app
            );
            let Declaration { provider, pool } = other.declaration;
            self.notice(NoticeKind::Merged, provider, &pool.app, reason);
        }
    }

    /// Tells of owners that declare a name which another declared first.
    fn report_joins(&mut self, canonical: &VipName, declarations: &[Named<'_>]) {
        let lease = self.allocator.leases().get(canonical);
        let claimed = lease.and_then(|lease| lease.claim.as_ref());
        // Where the first is gone, those who are left still share.
        let first = declarations
            .iter()
            .map(|named| &named.owner)
            .find(|owner| claimed.is_some_and(|claim| claim.owner == **owner))
            .unwrap_or(&declarations[0].owner);
        for named in declarations.iter().filter(|named| named.owner != *first) {
            let reason = format!("it joins the VIP {canonical} of {first}");
            let Declaration { provider, pool } = named.declaration;
            self.notice(NoticeKind::Joined, provider, &pool.app, reason);
        }
    }

    fn admit_ip_vips<'c>(&mut self, literal: ByAddress<'c>) -> ByAddress<'c> {
        let mut admitted = ByAddress::new();
        for (addr, declarations) in literal {
            let holder = self.allocator.holder(addr);
            let host = self.hosts.contains(&addr.to_canonical());
            let refused = self
                .policy
                .refuse_ip_vip(addr)
                .or_else(|| {
                    holder.map(|name| format!("IP VIP {addr} is the address of the VIP {name}"))
                })
                .or_else(|| {
                    host.then(|| {
                        format!("IP VIP {addr} is the address of a backend or of its host")
                    })
                });
            match refused {
                None => {
                    admitted.insert(addr, declarations);
                }
                Some(reason) => {
                    for declaration in declarations {
                        self.refuse(declaration, reason.clone());
                    }
                }
            }
        }
        admitted
    }

    /// Has every name leased an address of each family that it has backends in.
    fn lease(&mut self, named: &ByName<'_>, ip_vips: impl Iterator<Item = IpAddr>) {
        let families = |declarations: &[Named<'_>]| -> BTreeSet<Family> {
            let backends = declarations
                .iter()
                .flat_map(|named| &named.declaration.pool.backends);
            backends
                .filter(|backend| unusable(backend).is_none())
                .map(|backend| Family::of(canonical_addr(backend).ip()))
                .collect()
        };
        let wanted: BTreeSet<(Family, VipName)> = named
            .iter()
            .flat_map(|(name, d)| families(d).into_iter().map(|f| (f, name.clone())))
            .collect();
        let reserved = self.policy.forbidden.iter().copied().chain(ip_vips);
        let reserved: BTreeSet<IpAddr> = reserved.collect();
        let failed = self.allocator.allocate(&wanted, &reserved);
        self.desired.addresses = self
            .allocator
            .addresses()
            .map(|(addr, _)| addr)
            .chain(reserved)
            .filter(|addr| !self.policy.forbidden.contains(addr))
            .collect();
        for ((family, name), error) in failed {
            let other = Family::ALL
                .into_iter()
                .find(|other| *other != family)
                .is_some_and(|other| self.allocator.address(&name, other).is_some());
            // A dual-stack task on a node that has one family configured is nothing to talk about.
            if matches!(error, AllocError::NoPool { .. }) && other {
                continue;
            }
            let declarations = named.get(&name).map(Vec::as_slice).unwrap_or_default();
            for named in declarations {
                let Declaration { provider, pool } = named.declaration;
                let reason = format!("VIP {name}: {error}");
                self.notice(NoticeKind::NoAddress, provider, &pool.app, reason);
            }
        }
    }

    fn serve_name(&mut self, name: &VipName, declarations: &[Named<'_>]) {
        let declarations: Vec<_> = declarations.iter().map(|named| named.declaration).collect();
        let shaped = self.shape(&name.to_string(), &declarations);
        let mut at = Vec::new();
        for family in Family::ALL {
            let Some(addr) = self.allocator.address(name, family) else {
                continue;
            };
            if self.policy.forbidden.contains(&addr) {
                for &declaration in &declarations {
                    let reason = format!(
                        "the address {addr} of VIP {name} belongs to a node, a resolver or an \
                         orchestrator; change the pool or release the name"
                    );
                    self.refuse(declaration, reason);
                }
                continue;
            }
            at.push(addr);
            let mut served = false;
            for (declaration, properties) in &shaped {
                served |= self.add_backends(addr, Some(name), *declaration, properties);
            }
            if served {
                let addresses = self.desired.names.entry(name.clone()).or_default();
                addresses.set(addr);
            }
        }
        self.note_empty(&at, Some(name), &shaped);
        self.keep_name(name, &at, &declarations);
        if self.allocator.contested().contains(name) {
            self.desired.contested.insert(name.clone());
        }
    }

    fn serve_ip_vip(&mut self, addr: IpAddr, declarations: &[Declaration<'_>]) {
        let shaped = self.shape(&addr.to_string(), declarations);
        for (declaration, properties) in &shaped {
            let backends = &declaration.pool.backends;
            if !self.add_backends(addr, None, *declaration, properties) && !backends.is_empty() {
                let family = Family::of(addr);
                let reason = format!("IP VIP {addr}: none of its backends has an {family} address");
                self.refuse(*declaration, reason);
            }
        }
        self.note_empty(&[addr], None, &shaped);
    }

    fn note_empty(&mut self, at: &[IpAddr], name: Option<&VipName>, shaped: &[Shaped<'_>]) {
        let declared = shaped
            .iter()
            .map(|(Declaration { pool, .. }, properties)| (pool.port, pool.protocol, properties));
        self.desired.note_empty(at, name, declared);
    }

    /// The declarations of one VIP with the properties that each port has: those of the first that says any. One
    /// that says others is refused: to serve its backends in another way than it asks for may be to serve whom
    /// it keeps out.
    fn shape<'d>(&mut self, vip: &str, declarations: &[Declaration<'d>]) -> Vec<Shaped<'d>> {
        let mut first = BTreeMap::<(Port, Protocol), (Declaration<'_>, &Arc<Properties>)>::new();
        let mut admitted = Vec::with_capacity(declarations.len());
        // Whoever has nobody behind it gives way.
        let mut ranked = declarations.to_vec();
        ranked.sort_by_key(|declaration| declaration.pool.backends.is_empty());
        for declaration in ranked {
            let pool = declaration.pool;
            let Some(properties) = &pool.properties else {
                admitted.push(declaration);
                continue;
            };
            let (holder, held) = *first
                .entry((pool.port, pool.protocol))
                .or_insert((declaration, properties));
            let differences = held.differences(properties);
            if differences.is_empty() {
                admitted.push(declaration);
                continue;
            }
            let reason = format!(
                "VIP {vip}:{}/{} has another {} from app {} of {}, which comes first; left out",
                pool.port,
                pool.protocol,
                differences.join(", "),
                holder.pool.app,
                holder.provider
            );
            self.refuse(declaration, reason);
        }
        let properties = |declaration: &Declaration<'_>| {
            let key = (declaration.pool.port, declaration.pool.protocol);
            first.get(&key).map(|(_, held)| Arc::clone(held))
        };
        admitted
            .into_iter()
            .map(|declaration| (declaration, properties(&declaration).unwrap_or_default()))
            .collect()
    }

    /// Adds the backends of `addr`'s family to the service there; false if there are none.
    fn add_backends(
        &mut self,
        addr: IpAddr,
        name: Option<&VipName>,
        declaration: Declaration<'_>,
        properties: &Arc<Properties>,
    ) -> bool {
        let Declaration { provider, pool } = declaration;
        let mut added = false;
        for backend in &pool.backends {
            let at = canonical_addr(backend);
            let looping = at.ip() == addr;
            let why = unusable(backend)
                .or_else(|| looping.then_some("it is the VIP itself, which would call itself"));
            if let Some(why) = why {
                let reason = format!("backend {at} (task {}): {why}", backend.task);
                self.refuse(declaration, reason);
                continue;
            }
            if Family::of(at.ip()) != Family::of(addr) {
                continue;
            }
            let key = ServiceKey {
                addr,
                port: pool.port,
                protocol: pool.protocol,
            };
            let service = self.desired.services.entry(key).or_insert_with(|| Service {
                name: name.cloned(),
                properties: Arc::clone(properties),
                backends: Vec::new(),
            });
            service.backends.push(CatalogBackend {
                addr: at,
                weight: backend.weight,
                max_flows: backend.max_flows,
                backup: backend.backup,
                zone: backend.zone.clone(),
                task: backend.task.clone(),
                instance: backend.instance.clone(),
                host: backend.host.clone(),
                called: None,
                app: pool.app.clone(),
                provider: provider.clone(),
                healthy: backend.healthy,
                draining: backend.draining,
            });
            added = true;
        }
        added
    }

    fn finish(mut self) -> Desired {
        for service in self.desired.services.values_mut() {
            merge_backends(&mut service.backends);
        }
        self.keep_names_of_the_waiting();
        self.desired.problems = self.notices.into_iter().collect();
        self.desired
    }
}
