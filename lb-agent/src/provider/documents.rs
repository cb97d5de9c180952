//! Several documents with services, each of which fails alone, as one snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use super::{Pool, Problem, Snapshot, VipHost, file};
use crate::catalog::{Port, Properties, Protocol};

/// Documents by name. Of two that shape one VIP in different ways the first by name holds.
#[derive(Debug, Default)]
pub(in crate::provider) struct Documents(BTreeMap<String, Document>);

/// One of them.
#[derive(Debug, Default)]
struct Document {
    /// As read last.
    text: Option<String>,
    /// The last good state.
    good: Option<Snapshot>,
    /// Why the last reading is not good.
    failure: Option<String>,
}

/// What a service stands at, and for which groups of agents.
type Place<'a> = (&'a VipHost, Port, Protocol, &'a BTreeSet<Arc<str>>);

// === impl Documents ===

impl Documents {
    /// Takes what a document says now, or why it cannot be read; its last good state stays where this is wrong.
    pub(in crate::provider) fn put(&mut self, name: &str, read: Result<String, String>) {
        let document = self.0.entry(name.to_owned()).or_default();
        let before = document.failure.take();
        let text = match read {
            Ok(text) => text,
            Err(why) => {
                document.text = None;
                document.failure = Some(why);
                return;
            }
        };
        if document.text.as_ref() == Some(&text) {
            document.failure = before;
            return;
        }
        match file::parse(&text, Path::new(name)) {
            Ok(snapshot) => document.good = Some(snapshot),
            Err(why) => document.failure = Some(why),
        }
        document.text = Some(text);
    }

    /// Forgets a document.
    pub(in crate::provider) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Forgets all others.
    pub(in crate::provider) fn keep_only(&mut self, names: &BTreeSet<String>) {
        self.0.retain(|name, _| names.contains(name));
    }

    /// How many there are.
    pub(in crate::provider) fn count(&self) -> usize {
        self.0.len()
    }

    /// All that is good, what is wrong, and whether a document was never good.
    pub(in crate::provider) fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot::default();
        let mut shaped = BTreeMap::new();
        for (name, document) in &self.0 {
            if let Some(why) = &document.failure {
                let state = match &document.good {
                    Some(_) => "its services stay as they were",
                    None => "nothing of it is served yet",
                };
                all.partial |= document.good.is_none();
                all.problems.push(Problem {
                    subject: name.as_str().into(),
                    reason: format!("{why}; {state}"),
                });
            }
            let Some(good) = &document.good else { continue };
            all.problems.extend(good.problems.iter().cloned());
            for pool in &good.pools {
                match contradiction(&mut shaped, name, pool) {
                    None => all.pools.push(pool.clone()),
                    Some(reason) => all.problems.push(Problem {
                        subject: Arc::clone(&pool.app),
                        reason,
                    }),
                }
            }
        }
        all.problems.sort();
        all
    }
}

/// What an earlier document says otherwise of the same VIP.
fn contradiction<'a>(
    shaped: &mut BTreeMap<Place<'a>, (&'a str, &'a Arc<Properties>)>,
    name: &'a str,
    pool: &'a Pool,
) -> Option<String> {
    let properties = pool.properties.as_ref()?;
    let place = (&pool.host, pool.port, pool.protocol, &properties.groups);
    let (first, held) = shaped.entry(place).or_insert((name, properties));
    if *held == properties {
        return None;
    }
    let keys = held.differences(properties).join(", ");
    Some(format!(
        "{name}: {first} comes first and has another {keys} for {}:{}/{}; service left out",
        pool.app, pool.port, pool.protocol
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, keys: &str, backend: &str) -> String {
        format!("services: [{{name: {name}, port: 1, {keys} backends: ['{backend}']}}]")
    }

    fn backends(snapshot: &Snapshot) -> Vec<String> {
        let backends = snapshot.pools.iter().flat_map(|pool| &pool.backends);
        backends.map(|backend| backend.addr.to_string()).collect()
    }

    fn reasons(snapshot: &Snapshot) -> String {
        let each = snapshot.problems.iter();
        each.map(|one| format!("{}: {}\n", one.subject, one.reason))
            .collect()
    }

    #[test]
    fn a_bad_document_keeps_its_own_last_good_state_and_no_others() {
        let mut documents = Documents::default();
        documents.put("a.yaml", Ok(service("/a", "", "10.0.0.1:1")));
        documents.put("b.yaml", Ok(service("/b", "", "10.0.0.2:1")));
        documents.put("a.yaml", Ok("services: [{nmae: /a}]".to_owned()));
        documents.put("b.yaml", Ok(service("/b", "", "10.0.0.3:1")));
        let snapshot = documents.snapshot();
        assert_eq!(backends(&snapshot), ["10.0.0.1:1", "10.0.0.3:1"]);
        assert!(!snapshot.partial);
        assert_eq!(
            reasons(&snapshot),
            "a.yaml: a.yaml:1:13: unknown key nmae; did you mean name?; its services stay as they were\n"
        );
        documents.put("a.yaml", Ok("services: [{nmae: /a}]".to_owned()));
        assert_eq!(
            documents.snapshot(),
            snapshot,
            "the same text is as wrong as before"
        );
        documents.put("a.yaml", Err("gone mad".to_owned()));
        assert!(reasons(&documents.snapshot()).contains("gone mad"));
        documents.put("a.yaml", Ok(service("/a", "", "10.0.0.4:1")));
        assert_eq!(reasons(&documents.snapshot()), "");
        documents.remove("a.yaml");
        assert_eq!(backends(&documents.snapshot()), ["10.0.0.3:1"]);
    }

    #[test]
    fn what_was_never_good_makes_the_state_partial_until_it_is_or_is_gone() {
        let mut documents = Documents::default();
        documents.put("a.yaml", Ok("services: 7".to_owned()));
        documents.put("b.yaml", Ok(service("/b", "", "10.0.0.2:1")));
        assert!(documents.snapshot().partial);
        assert!(reasons(&documents.snapshot()).contains("nothing of it is served yet"));
        assert_eq!(backends(&documents.snapshot()), ["10.0.0.2:1"]);
        documents.keep_only(&BTreeSet::from(["b.yaml".to_owned()]));
        assert!(!documents.snapshot().partial);
        assert_eq!(documents.count(), 1);
    }

    #[test]
    fn of_two_documents_that_shape_a_vip_the_first_by_name_holds() {
        let mut documents = Documents::default();
        documents.put("b.yaml", Ok(service("/a", "rate: 6,", "10.0.0.2:1")));
        documents.put("a.yaml", Ok(service("/a", "rate: 5,", "10.0.0.1:1")));
        documents.put("c.yaml", Ok(service("/a", "", "10.0.0.3:1")));
        let snapshot = documents.snapshot();
        assert_eq!(backends(&snapshot), ["10.0.0.1:1", "10.0.0.3:1"]);
        assert_eq!(
            reasons(&snapshot),
            "/a: b.yaml: a.yaml comes first and has another rate for /a:1/tcp; service left out\n"
        );
    }

    #[test]
    fn documents_for_other_groups_of_agents_do_not_contradict_each_other() {
        let mut documents = Documents::default();
        documents.put(
            "a.yaml",
            Ok(service("/a", "rate: 5, group: east,", "10.0.0.1:1")),
        );
        documents.put(
            "b.yaml",
            Ok(service("/a", "rate: 6, group: west,", "10.0.0.2:1")),
        );
        let snapshot = documents.snapshot();
        assert_eq!(backends(&snapshot), ["10.0.0.1:1", "10.0.0.2:1"]);
        assert_eq!(reasons(&snapshot), "");
    }
}
