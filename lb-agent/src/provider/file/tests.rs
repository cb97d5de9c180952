//! The watcher on real files.

use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};

use super::*;
use crate::provider::{Again, Snapshot};

const DEADLINE: Duration = Duration::from_secs(20);
/// So long that only a noticed change explains an update.
const NEVER: Duration = Duration::from_secs(600);

struct Watched {
    rx: mpsc::Receiver<Update>,
    task: JoinHandle<()>,
    again: Again,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn watch_with(path: PathBuf, retry: Duration) -> Watched {
    let (tx, rx) = mpsc::channel(64);
    let timings = watch::Timings {
        debounce: Duration::from_millis(30),
        debounce_at_most: Duration::from_millis(300),
        resync: NEVER,
        retry,
    };
    let again = Again::default();
    let asked = again.listen();
    let task = tokio::spawn(async move { watch::watch(&path, &tx, asked, timings).await });
    Watched { rx, task, again }
}

fn watch(path: PathBuf) -> Watched {
    watch_with(path, NEVER)
}

impl Watched {
    async fn next(&mut self) -> Result<Arc<Snapshot>, String> {
        let update = tokio::time::timeout(DEADLINE, self.rx.recv()).await;
        update
            .expect("an update in time")
            .expect("a watcher that lives")
            .outcome
    }

    /// Waits for a good state with exactly this port.
    async fn until_port(&mut self, port: u16) {
        loop {
            if let Ok(state) = self.next().await
                && state.pools.len() == 1
                && state.pools[0].port.get() == port
            {
                return;
            }
        }
    }

    /// Waits for a good state with exactly these services, and a problem with this in it; empty: none.
    async fn until(&mut self, services: &[&str], problem: &str) {
        loop {
            let Ok(state) = self.next().await else {
                continue;
            };
            let pools = state.pools.iter();
            let found: Vec<_> = pools
                .map(|pool| format!("{}:{}", pool.app, pool.port))
                .collect();
            let mut problems = state.problems.iter();
            let told = match problem {
                "" => state.problems.is_empty(),
                part => problems.any(|one| one.reason.contains(part)),
            };
            if found == services && told {
                return;
            }
        }
    }

    async fn until_failure(&mut self, part: &str) {
        while !self.next().await.is_err_and(|why| why.contains(part)) {}
    }
}

fn services(port: u16) -> String {
    format!("services:\n  - name: /a\n    port: {port}\n    backends: [10.0.0.1:80]\n")
}

fn dir_with(port: u16) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("services.yaml");
    fs::write(&path, services(port)).unwrap();
    (dir, path)
}

#[tokio::test]
async fn a_file_written_in_place_or_replaced_is_read_again() {
    let (dir, path) = dir_with(1);
    let mut watched = watch(path.clone());
    watched.until_port(1).await;
    fs::write(&path, services(2)).unwrap();
    watched.until_port(2).await;
    let new = dir.path().join("new");
    fs::write(&new, services(3)).unwrap();
    fs::rename(&new, &path).unwrap();
    watched.until_port(3).await;
}

#[tokio::test]
async fn who_is_asked_reads_a_file_that_did_not_change() {
    let (_dir, path) = dir_with(1);
    let mut watched = watch(path);
    watched.until_port(1).await;
    watched.again.ask();
    watched.until_port(1).await;
}

#[tokio::test]
async fn a_config_maps_swapped_link_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, port) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("services.yaml"), services(port)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/services.yaml", at("services.yaml")).unwrap();
    let mut watched = watch(at("services.yaml"));
    watched.until_port(1).await;
    symlink("..2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    watched.until_port(2).await;
}

#[tokio::test]
async fn a_link_into_another_directory_is_followed() {
    let (_real, target) = dir_with(1);
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link.yaml");
    symlink(&target, &link).unwrap();
    let mut watched = watch(link);
    watched.until_port(1).await;
    fs::write(&target, services(2)).unwrap();
    watched.until_port(2).await;
}

#[tokio::test]
async fn an_error_names_its_place_and_the_repaired_file_is_read() {
    let (_dir, path) = dir_with(1);
    let mut watched = watch(path.clone());
    watched.until_port(1).await;
    fs::write(&path, "services:\n  - nmae: /a\n").unwrap();
    watched
        .until_failure(&format!(
            "{}:2:5: unknown key nmae; did you mean name?",
            path.display()
        ))
        .await;
    fs::write(&path, services(2)).unwrap();
    watched.until_port(2).await;
}

#[tokio::test]
async fn a_file_that_is_removed_or_not_yet_there_is_a_failure_until_it_comes() {
    let (dir, path) = dir_with(1);
    let mut watched = watch(path.clone());
    watched.until_port(1).await;
    fs::remove_file(&path).unwrap();
    watched.until_failure("cannot read").await;
    fs::write(&path, services(2)).unwrap();
    watched.until_port(2).await;

    let later = dir.path().join("not/yet/services.yaml");
    let mut watched = watch_with(later.clone(), Duration::from_millis(50));
    watched.until_failure("cannot read").await;
    fs::create_dir_all(later.parent().unwrap()).unwrap();
    fs::write(&later, services(3)).unwrap();
    watched.until_port(3).await;
}

#[tokio::test]
async fn reading_the_file_is_no_change_of_it() {
    let (_dir, path) = dir_with(1);
    let mut watched = watch(path.clone());
    watched.until_port(1).await;
    fs::read(&path).unwrap();
    let more = tokio::time::timeout(Duration::from_millis(400), watched.rx.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn without_a_file_the_default_has_no_services_and_no_problems() {
    let (tx, mut rx) = mpsc::channel(1);
    let task = tokio::spawn(run(None, tx, Again::default().listen()));
    let update = rx.recv().await.unwrap();
    assert_eq!(update.provider.as_str(), "file:default");
    assert_eq!(*update.outcome.unwrap(), Snapshot::default());
    drop(rx);
    tokio::time::timeout(DEADLINE, task)
        .await
        .expect("the end")
        .unwrap();
}

#[tokio::test]
async fn of_a_directory_one_bad_file_keeps_its_own_last_good_state() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let service = |name: &str, port: u16| format!("services: [{{name: {name}, port: {port}}}]");
    fs::write(at("a.yaml"), service("/a", 1)).unwrap();
    fs::write(at("notes.txt"), "no services").unwrap();
    let mut watched = watch(dir.path().to_owned());
    watched.until(&["/a:1"], "").await;
    fs::write(at("b.yaml"), service("/b", 2)).unwrap();
    watched.until(&["/a:1", "/b:2"], "").await;
    fs::write(at("a.yaml"), "services: [{nmae: /a}]").unwrap();
    fs::write(at("b.yaml"), service("/b", 3)).unwrap();
    let told = format!("{}:1:13: unknown key nmae", at("a.yaml").display());
    watched.until(&["/a:1", "/b:3"], &told).await;
    fs::remove_file(at("a.yaml")).unwrap();
    watched.until(&["/b:3"], "").await;
    fs::remove_dir_all(dir.path()).unwrap();
    watched.until_failure("cannot read").await;
}

#[tokio::test]
async fn a_config_map_of_several_files_is_swapped_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, port) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(at(version)).unwrap();
        for name in ["a", "b"] {
            let text = format!("services: [{{name: /{name}, port: {port}}}]");
            fs::write(at(version).join(format!("{name}.yaml")), text).unwrap();
        }
    }
    symlink("..1", at("..data")).unwrap();
    for name in ["a.yaml", "b.yaml"] {
        symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let mut watched = watch(dir.path().to_owned());
    watched.until(&["/a:1", "/b:1"], "").await;
    symlink("..2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    watched.until(&["/a:2", "/b:2"], "").await;
}
