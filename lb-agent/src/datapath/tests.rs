//! Attaching against the kernel, each test in a network namespace of its own. They need root.

mod ports;
mod walks;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;
use crate::purged::Purged;

/// Pins, cgroup and interfaces of one test; all gone with it.
struct Node {
    pins: PathBuf,
    cgroup: PathBuf,
}

impl Node {
    fn new(test: &str) -> Self {
        let name = format!("lb-test-{}-{test}", std::process::id());
        let node = Self {
            pins: PathBuf::from("/sys/fs/bpf").join(&name),
            cgroup: crate::preflight::cgroup_root(&std::env::temp_dir())
                .unwrap()
                .join(&name),
        };
        fs::create_dir(&node.cgroup).unwrap();
        node
    }

    fn load(&self, names: &[&str], tc_mode: TcMode, xdp_mode: XdpMode) -> Datapath {
        Datapath::load(DatapathConfig {
            pin_dir: self.pins.clone(),
            cgroup: self.cgroup.clone(),
            interfaces: interfaces(names),
            xdp_mode,
            tc_mode,
            tx_by_redirect: true,
            new_flows: 0,
            sizes: Sizes {
                tcp_flows: 1024,
                half_open_flows: 1024,
                udp_flows: 1024,
                backends: 16,
                services: 16,
                addresses: 16,
                sockets: 1024,
            },
        })
        .unwrap()
    }

    /// Loads, attaches, and ends, as an agent that is killed.
    fn run(&self, names: &[&str], tc_mode: TcMode) {
        self.load(names, tc_mode, XdpMode::Native).attach().unwrap();
    }

    fn pinned_links(&self) -> Vec<String> {
        let mut pins: Vec<_> = fs::read_dir(self.pins.join("v1/links"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pins.sort();
        pins
    }

    fn link_id(&self, pin: &str) -> String {
        let path = self.pins.join("v1/links").join(pin);
        let info = run("bpftool", &format!("link show pinned {}", path.display()));
        info.split(':').next().unwrap().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        purge(&self.pins, &mut Purged::default());
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// What was removed, as nothing may fail.
fn purged(pins: &Path) -> String {
    let mut purged = Purged::default();
    purge(pins, &mut purged);
    assert_eq!(purged.failed, [""; 0]);
    purged.removed.join("\n")
}

fn run(program: &str, words: &str) -> String {
    let output = Command::new(program)
        .args(words.split_whitespace())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn interfaces(names: &[&str]) -> Vec<Interface> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    crate::preflight::interfaces(&names).unwrap()
}

/// Program and id of each filter of `lb_` on this side.
fn filters(dev: &str, side: &str) -> Vec<(String, u32)> {
    let shown = run("tc", &format!("filter show dev {dev} {side}"));
    shown
        .lines()
        .filter(|line| line.contains(" handle "))
        .filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let name = words.iter().find(|word| word.starts_with("lb_"))?;
            let id = words.iter().position(|word| *word == "id")?;
            Some(((*name).to_owned(), words[id + 1].parse().unwrap()))
        })
        .collect()
}

fn names(filters: &[(String, u32)]) -> Vec<&str> {
    filters.iter().map(|(name, _)| name.as_str()).collect()
}

/// Name and id of each program on this side's tcx.
fn tcx(dev: &str, side: TcAttachType) -> Vec<(String, u32)> {
    let (_, programs) = SchedClassifier::query_tcx(dev, side).unwrap();
    let show = |info: &aya::programs::ProgramInfo| (info.name_as_str().unwrap().into(), info.id());
    programs.iter().map(show).collect()
}

/// A filter that is not ours: same kind, other name.
fn add_foreign_filter(node: &Node, dev: &str, words: &str) {
    let datapath = node.load(&[], TcMode::Clsact, XdpMode::Off);
    let program = datapath.object.program("lb_tc_egress").unwrap();
    // bpffs refuses names with a dot.
    let path = PathBuf::from(format!("{}-program", node.pins.display()));
    sys::pin(program.fd().unwrap().as_fd(), &path).unwrap();
    let add = format!(
        "filter add dev {dev} {words} bpf da object-pinned {}",
        path.display()
    );
    run("tc", &add);
    fs::remove_file(path).unwrap();
}

/// Waits for what the kernel does a little later: an unpinned link is detached after an RCU grace period.
fn becomes<T: PartialEq + std::fmt::Debug>(look: impl Fn() -> T, wanted: T) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while look() != wanted && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!(look(), wanted);
}

fn qdiscs(dev: &str) -> String {
    run("tc", &format!("qdisc show dev {dev}"))
}

/// Runs `test` in a thread with a network namespace for itself, which holds the veth ends `va` and `vb`.
fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    let body = move || {
        // SAFETY: a new network namespace for this thread; descriptor tables stay shared.
        let left = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        left.expect("a network namespace of its own: run the tests as root");
        run("ip", "link add va type veth peer name vb");
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_clsact_filter_outlives_its_agent_and_is_replaced_in_place() {
    in_a_namespace(|| {
        let node = Node::new("replace");
        node.run(&["va"], TcMode::Clsact);
        let (ingress, egress) = (filters("va", "ingress"), filters("va", "egress"));
        assert_eq!(names(&ingress), ["lb_tc_ingress"]);
        assert_eq!(names(&egress), ["lb_tc_egress"]);
        let place = |side| run("tc", &format!("filter show dev va {side} pref 10"));
        assert!(
            place("ingress").contains("handle 0x6c62 lb_tc_ingress"),
            "{}",
            place("ingress")
        );

        node.run(&["va"], TcMode::Clsact);
        let replaced = filters("va", "ingress");
        assert_eq!(names(&replaced), ["lb_tc_ingress"]);
        assert_ne!(replaced, ingress, "the old program still runs");
        assert_ne!(filters("va", "egress"), egress);

        let removed = purged(&node.pins);
        assert!(
            removed.contains("lb_tc_ingress from ingress of va"),
            "{removed}"
        );
        assert!(removed.contains("clsact qdisc of va"), "{removed}");
        assert!(!qdiscs("va").contains("clsact"), "{}", qdiscs("va"));
        assert!(!node.pins.exists());
    });
}

#[test]
fn purge_leaves_the_filters_and_the_qdisc_of_others() {
    in_a_namespace(|| {
        let node = Node::new("foreign");
        run("tc", "qdisc add dev va clsact");
        node.run(&["va", "vb"], TcMode::Clsact);
        add_foreign_filter(&node, "vb", "ingress pref 5");

        purged(&node.pins);
        assert_eq!(filters("va", "ingress"), []);
        assert!(qdiscs("va").contains("clsact"), "not ours");
        let left = run("tc", "filter show dev vb ingress");
        assert!(left.contains("pref 5 bpf"), "{left}");
        assert!(!left.contains("pref 10"), "{left}");
        assert!(!node.pins.exists());
    });
}

#[test]
fn purge_goes_on_past_what_it_cannot_remove() {
    in_a_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let [odd, sound] = ["v1", "v2"].map(|schema| dir.path().join(schema));
        fs::create_dir_all(&odd).unwrap();
        // Not a folder, so it cannot be listed.
        fs::write(odd.join("links"), "").unwrap();
        fs::create_dir_all(sound.join("links")).unwrap();
        fs::write(sound.join("LB_FLOWS"), "").unwrap();
        let mut purged = Purged::default();
        purge(dir.path(), &mut purged);
        let told = purged.failed.join("\n");
        assert!(told.contains("v1/links"), "{told}");
        assert!(!sound.exists(), "{purged:?}");
        let removed = sound.join("LB_FLOWS").display().to_string();
        assert!(purged.removed.contains(&removed), "{purged:?}");
    });
}

#[test]
fn filters_leave_interfaces_that_are_no_longer_wanted() {
    in_a_namespace(|| {
        let node = Node::new("keep");
        run("ip", "link add vc type veth peer name vd");
        let mut datapath = node.load(&["va", "vb"], TcMode::Clsact, XdpMode::Native);
        datapath.attach().unwrap();
        datapath
            .set_link_interfaces(&interfaces(&["va", "vc"]))
            .unwrap();
        assert_eq!(
            names(&filters("va", "ingress")),
            ["lb_tc_ingress", "lb_tc_link"]
        );
        let link = filters("vc", "ingress");
        assert_eq!(names(&link), ["lb_tc_link"]);
        datapath.set_link_interfaces(&interfaces(&["vc"])).unwrap();
        assert_eq!(filters("vc", "ingress"), link, "nothing changed there");
        assert_eq!(names(&filters("va", "ingress")), ["lb_tc_ingress"]);
        drop(datapath);

        let mut datapath = node.load(&["va"], TcMode::Clsact, XdpMode::Native);
        datapath.attach().unwrap();
        assert!(!qdiscs("vb").contains("clsact"), "{}", qdiscs("vb"));
        assert_eq!(names(&filters("vc", "ingress")), ["lb_tc_link"]);
        datapath.set_link_interfaces(&[]).unwrap();
        assert!(!qdiscs("vc").contains("clsact"), "{}", qdiscs("vc"));
    });
}

#[test]
fn a_filter_of_somebody_else_is_never_overwritten() {
    in_a_namespace(|| {
        let node = Node::new("taken");
        run("tc", "qdisc add dev va clsact");
        add_foreign_filter(&node, "va", "egress pref 10 handle 0x6c62");
        let before = run("tc", "filter show dev va egress");

        let refused = node
            .load(&["va"], TcMode::Clsact, XdpMode::Off)
            .attach()
            .unwrap_err();
        assert!(
            format!("{refused:#}").contains("another filter"),
            "{refused:#}"
        );
        assert_eq!(run("tc", "filter show dev va egress"), before);
    });
}

#[test]
fn a_tcx_link_outlives_its_agent_and_is_taken_over() {
    in_a_namespace(|| {
        let node = Node::new("tcx");
        node.run(&["va"], TcMode::Tcx);
        let index = interfaces(&["va"])[0].index;
        let (ingress, egress) = (format!("ingress-{index}"), format!("egress-{index}"));
        let before = (node.link_id(&ingress), node.link_id(&egress));
        let shown = tcx("va", TcAttachType::Ingress);
        assert_eq!(names(&shown), ["lb_tc_ingress"]);

        node.run(&["va"], TcMode::Tcx);
        assert_eq!((node.link_id(&ingress), node.link_id(&egress)), before);
        let replaced = tcx("va", TcAttachType::Ingress);
        assert_eq!(names(&replaced), ["lb_tc_ingress"]);
        assert_ne!(replaced, shown, "the old program still runs");
        assert!(!qdiscs("va").contains("clsact"));

        purged(&node.pins);
        becomes(|| tcx("va", TcAttachType::Ingress), vec![]);
        becomes(|| tcx("va", TcAttachType::Egress), vec![]);
    });
}

#[test]
fn programs_that_somebody_takes_off_are_put_back() {
    in_a_namespace(|| {
        let sides = ["ingress", "egress"];
        let programs = ["lb_tc_ingress", "lb_tc_egress"];

        let node = Node::new("off-clsact");
        let mut datapath = node.load(&["va"], TcMode::Clsact, XdpMode::Off);
        datapath.attach().unwrap();
        run("tc", "qdisc del dev va clsact");
        datapath.set_interfaces(interfaces(&["va"])).unwrap();
        for (side, program) in sides.into_iter().zip(programs) {
            assert_eq!(names(&filters("va", side)), [program]);
        }

        let node = Node::new("off-tcx");
        let mut datapath = node.load(&["vb"], TcMode::Tcx, XdpMode::Off);
        datapath.attach().unwrap();
        let index = interfaces(&["vb"])[0].index;
        for side in sides {
            let pin = node.pins.join(format!("v1/links/{side}-{index}"));
            run("bpftool", &format!("link detach pinned {}", pin.display()));
        }
        assert_eq!(tcx("vb", TcAttachType::Ingress), []);
        datapath.set_interfaces(interfaces(&["vb"])).unwrap();
        for (side, program) in [TcAttachType::Ingress, TcAttachType::Egress]
            .into_iter()
            .zip(programs)
        {
            assert_eq!(names(&tcx("vb", side)), [program]);
        }
    });
}

#[test]
fn what_an_agent_before_was_told_of_interfaces_holds_no_more() {
    in_a_namespace(|| {
        let node = Node::new("told");
        let [a, b] = ["va", "vb"].map(|name| interfaces(&[name])[0].index);
        let set = |indices: &[u32]| indices.iter().copied().collect::<BTreeSet<_>>();
        for (names, mode, shown, seen, sent_to) in [
            (
                &["va", "vb"][..],
                XdpMode::Native,
                Some("xdp"),
                &[a, b][..],
                &[a, b][..],
            ),
            (&["va"], XdpMode::Native, Some("xdp"), &[a], &[a]),
            (&["va"], XdpMode::Generic, Some("xdpgeneric"), &[a], &[]),
            (&["va"], XdpMode::Native, Some("xdp"), &[a], &[a]),
            (&["va"], XdpMode::Off, None, &[], &[]),
        ] {
            let mut datapath = node.load(names, TcMode::Tcx, mode);
            datapath.attach().unwrap();
            let link = run("ip", "link show dev va");
            let word = link.split_whitespace().find(|word| word.starts_with("xdp"));
            assert_eq!(word, shown, "{mode:?}: {link}");
            let by_xdp: BTreeSet<_> = datapath.by_xdp.keys().map(Result::unwrap).collect();
            let ports: BTreeSet<_> = datapath.ports.keys().map(Result::unwrap).collect();
            assert_eq!(by_xdp, set(seen), "{mode:?}");
            assert_eq!(ports, set(sent_to), "{mode:?}");
        }
    });
}

#[test]
fn a_failed_attach_leaves_nothing_behind() {
    in_a_namespace(|| {
        for tc_mode in [TcMode::Clsact, TcMode::Tcx] {
            let (node, other) = (Node::new("failed"), Node::new("failed-other"));
            other.run(&["vb"], TcMode::Tcx);
            let state = || {
                let sides = [TcAttachType::Ingress, TcAttachType::Egress];
                let programs = ["va", "vb"].map(|dev| sides.map(|side| tcx(dev, side)));
                (run("bpftool", "net show"), programs)
            };
            let before = state();
            let mut datapath = node.load(&["va", "vb"], tc_mode, XdpMode::Native);
            let refused = format!("{:#}", datapath.attach().unwrap_err());
            assert!(
                refused.contains("XDP to vb") && refused.contains("another"),
                "{refused}"
            );
            assert_eq!(node.pinned_links(), [""; 0], "{tc_mode:?}");
            becomes(state, before);
            assert!(!run("tc", "qdisc show").contains("clsact"), "{tc_mode:?}");
        }
    });
}
