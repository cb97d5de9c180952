//! Whose each service in the kernel is, kept on disk, so that after a start only those wait that may be of a
//! provider which was not read yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tracing::warn;

use super::wanted::endpoint;
use crate::{
    catalog::Desired,
    plan::{Endpoint, KernelState},
    provider::ProviderId,
};

const FILE: &str = "service-owners.json";

/// Stands for whoever it may be, and was never read.
const UNKNOWN: &str = "";

/// Providers by service. One that the kernel holds and nobody noted is of an unknown provider.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners {
    path: PathBuf,
    by_service: BTreeMap<Endpoint, BTreeSet<String>>,
    saved: bool,
}

/// The file: the service as text, and its providers.
type Document = BTreeMap<String, BTreeSet<String>>;

// === impl Owners ===

impl Owners {
    /// Of the services that the kernel holds. A file that cannot be read costs nothing but patience: then all
    /// wait for every provider.
    pub(super) fn load(state_dir: &Path, have: &KernelState) -> Self {
        let path = state_dir.join(FILE);
        let mut noted = read(&path).unwrap_or_else(|error| {
            warn!("{error:#}; until every provider was read, no service is removed");
            Document::new()
        });
        let unknown = || BTreeSet::from([UNKNOWN.to_owned()]);
        let by_service = have
            .services
            .keys()
            .map(|service| {
                let owners = noted.remove(&service.to_string());
                (*service, owners.unwrap_or_else(unknown))
            })
            .collect();
        Self {
            path,
            by_service,
            saved: false,
        }
    }

    /// The services that may be of a provider which is not among those that were `read`. A provider that is not
    /// configured any more may be one of those under another name.
    pub(super) fn unsettled(&self, read: &BTreeSet<ProviderId>) -> BTreeSet<Endpoint> {
        let read: BTreeSet<&str> = read.iter().map(ProviderId::as_str).collect();
        let settled =
            |owners: &BTreeSet<String>| owners.iter().all(|owner| read.contains(owner.as_str()));
        self.by_service
            .iter()
            .filter(|(_, owners)| !settled(owners))
            .map(|(service, _)| *service)
            .collect()
    }

    /// Takes down whose the services of `desired` are; those of `held` keep the owners that they have besides.
    pub(super) fn note(&mut self, desired: &Desired, held: &BTreeSet<Endpoint>) {
        let mut now = self.by_service.clone();
        now.retain(|service, _| held.contains(service));
        let external = desired.external.iter();
        let external = external.filter_map(|(at, of)| Some((at, desired.services.get(of)?)));
        for (key, service) in desired.services.iter().chain(external) {
            let providers = service.backends.iter();
            let providers = providers.map(|backend| &backend.provider);
            let providers = providers.filter(|provider| !provider.is_operator());
            let providers = providers.map(ToString::to_string);
            now.entry(endpoint(key)).or_default().extend(providers);
        }
        self.saved &= now == self.by_service;
        self.by_service = now;
    }

    /// Writes what changed; to be called before the kernel gets those services. A crash at any point leaves the
    /// old file or the new one.
    pub(super) fn save(&mut self) -> Result<()> {
        if self.saved {
            return Ok(());
        }
        let document: Document = self
            .by_service
            .iter()
            .map(|(service, owners)| (service.to_string(), owners.clone()))
            .collect();
        let temporary = self.path.with_extension("json.new");
        let write = || -> io::Result<()> {
            if let Some(dir) = self.path.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::write(&temporary, serde_json::to_vec(&document)?)?;
            fs::rename(&temporary, &self.path)
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))?;
        self.saved = true;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Document> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Document::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{CatalogBackend, Service, ServiceKey};

    fn key(vip: &str) -> ServiceKey {
        ServiceKey::tcp(&format!("{vip}:80"))
    }

    fn provider(name: &str) -> ProviderId {
        ProviderId::new("test", name)
    }

    /// Services, each with its providers.
    fn desired(services: &[(&str, &[&str])]) -> Desired {
        let service = |providers: &[&str]| Service {
            name: None,
            properties: Default::default(),
            backends: providers
                .iter()
                .map(|name| CatalogBackend {
                    provider: provider(name),
                    ..CatalogBackend::plain("10.0.0.1:80")
                })
                .collect(),
        };
        Desired {
            services: services
                .iter()
                .map(|(vip, providers)| (key(vip), service(providers)))
                .collect(),
            ..Desired::default()
        }
    }

    fn kernel(vips: &[&str]) -> KernelState {
        KernelState {
            services: vips
                .iter()
                .map(|vip| (endpoint(&key(vip)), Default::default()))
                .collect(),
            ..KernelState::default()
        }
    }

    fn unsettled(owners: &Owners, read: &[&str]) -> Vec<String> {
        let read = read.iter().map(|name| provider(name)).collect();
        let services = owners.unsettled(&read);
        services.iter().map(|at| at.addr.to_string()).collect()
    }

    /// What a former life left behind.
    fn former(dir: &Path, services: &[(&str, &[&str])]) {
        let mut owners = Owners::load(dir, &KernelState::default());
        owners.note(&desired(services), &BTreeSet::new());
        owners.save().unwrap();
    }

    #[test]
    fn a_service_waits_for_each_of_its_own_providers_and_for_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let shared: &[&str] = &["a", "b"];
        former(
            dir.path(),
            &[
                ("11.0.0.1", &["a"]),
                ("11.0.0.2", &["b"]),
                ("11.0.0.3", shared),
            ],
        );
        let have = kernel(&["11.0.0.1", "11.0.0.2", "11.0.0.3"]);
        let owners = Owners::load(dir.path(), &have);
        let (one, two, both) = ("11.0.0.1", "11.0.0.2", "11.0.0.3");
        assert_eq!(unsettled(&owners, &[]), [one, two, both]);
        assert_eq!(unsettled(&owners, &["a"]), [two, both]);
        assert_eq!(unsettled(&owners, &["b"]), [one, both]);
        assert_eq!(unsettled(&owners, &["a", "b"]), [""; 0]);
    }

    #[test]
    fn what_nobody_noted_waits_even_when_somebody_declares_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut owners = Owners::load(dir.path(), &kernel(&["11.0.0.1"]));
        let held = owners.unsettled(&[provider("a")].into());
        assert_eq!(held.len(), 1);
        owners.note(&desired(&[("11.0.0.1", &["a"])]), &held);
        assert_eq!(unsettled(&owners, &["a"]), ["11.0.0.1"]);
        owners.save().unwrap();
        let again = Owners::load(dir.path(), &kernel(&["11.0.0.1"]));
        assert_eq!(unsettled(&again, &["a"]), ["11.0.0.1"]);
    }

    #[test]
    fn a_service_that_joined_another_provider_waits_for_both_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        former(dir.path(), &[("11.0.0.1", &["b"])]);
        let mut owners = Owners::load(dir.path(), &kernel(&["11.0.0.1"]));
        // a is read first and joins; then the agent is killed.
        let held = owners.unsettled(&[provider("a")].into());
        owners.note(&desired(&[("11.0.0.1", &["a"])]), &held);
        owners.save().unwrap();
        let again = Owners::load(dir.path(), &kernel(&["11.0.0.1"]));
        assert_eq!(unsettled(&again, &["a"]), ["11.0.0.1"]);
        assert_eq!(unsettled(&again, &["a", "b"]), [""; 0]);
    }

    #[test]
    fn a_port_of_the_node_waits_for_the_providers_of_its_service() {
        let dir = tempfile::tempdir().unwrap();
        let mut desired = desired(&[("11.0.0.1", &["a", "b"])]);
        desired.external = [(key("10.0.0.1"), key("11.0.0.1"))].into();
        let mut owners = Owners::load(dir.path(), &KernelState::default());
        owners.note(&desired, &BTreeSet::new());
        owners.save().unwrap();
        let owners = Owners::load(dir.path(), &kernel(&["10.0.0.1", "11.0.0.1"]));
        assert_eq!(unsettled(&owners, &["a"]), ["10.0.0.1", "11.0.0.1"]);
        assert_eq!(unsettled(&owners, &["a", "b"]), [""; 0]);
    }

    #[test]
    fn a_damaged_file_makes_everything_wait() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        let owners = Owners::load(dir.path(), &kernel(&["11.0.0.1"]));
        assert_eq!(unsettled(&owners, &["a"]), ["11.0.0.1"]);
    }
}
