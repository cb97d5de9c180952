//! The programs in the kernel, on no interface: a packet goes in by `BPF_PROG_TEST_RUN`.

use std::{env, fs, os::fd::AsFd as _};

use aya::{
    EbpfLoader,
    programs::{
        Program, ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp, XdpMode,
        xdp::XdpLink,
    },
};

use super::{Frame, pool::Lent, sys};

/// `XDP_DROP`.
pub const XDP_DROP: u32 = 1;
/// `XDP_PASS`.
pub const XDP_PASS: u32 = 2;
/// `XDP_TX`.
pub const XDP_TX: u32 = 3;
/// `XDP_REDIRECT`.
pub const XDP_REDIRECT: u32 = 4;
/// `TC_ACT_OK`.
pub const TC_OK: u32 = 0;
/// `TC_ACT_SHOT`.
pub const TC_SHOT: u32 = 2;
/// `TC_ACT_REDIRECT`.
pub const TC_REDIRECT: u32 = 7;

/// Room for what comes out; a test's packets are far smaller.
const ROOM: usize = 4096;
/// More than a test opens; not 0, so that the guard is there as it is in an agent.
const NEW_FLOWS: u32 = 10_000_000;
const SMALL: u32 = 1_024;
const SMALL_MAPS: [&str; 20] = [
    "LB_AFFINITY",
    "LB_LIMITS",
    "LB_LISTS4",
    "LB_LISTS6",
    "LB_LOADS",
    "LB_SERVICE_STATES",
    "LB_SERVICE_STATS",
    "LB_SERVICE_TRAFFIC",
    "LB_SOURCE_RATES",
    "LB_ADDRS4",
    "LB_ADDRS6",
    "LB_SERVICES4",
    "LB_SERVICES6",
    "LB_BACKENDS",
    "LB_PEERS",
    "LB_STATS",
    "LB_SUSPECTS",
    "LB_CONNECTIONS",
    "LB_SOCK_PEERS",
    "LB_SOCK_CHOICES",
];
const FLOWS: u32 = 16_384;
const FLOW_MAPS: [&str; 6] = [
    "LB_FLOWS_HALF4",
    "LB_FLOWS_HALF6",
    "LB_FLOWS_TCP4",
    "LB_FLOWS_TCP6",
    "LB_FLOWS_UDP4",
    "LB_FLOWS_UDP6",
];

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `lb_xdp`.
    Xdp,
    /// `lb_xdp_general`, to which `lb_xdp` hands on what is rare.
    XdpGeneral,
    /// `lb_tc_ingress`, the twin of XDP.
    Ingress,
    /// `lb_tc_link`, behind which backends of this node live.
    Link,
    /// `lb_tc_egress`.
    Egress,
}

/// What a program made of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// An XDP or a tc action.
    pub verdict: u32,
    /// The packet.
    pub bytes: Vec<u8>,
}

/// How much a rig holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sizes {
    /// Entries for TCP flows over IPv4.
    pub tcp4: u32,
    /// Entries for half-open ones, of each family.
    pub half: u32,
    /// New flows a second on each CPU; 0: no limit.
    pub new_flows: u32,
    /// Not 0: XDP transmits nothing itself.
    pub tx_by_redirect: u8,
}

/// The programs and their maps, this test's alone for as long as it has them.
pub struct Rig {
    pub(super) object: Lent,
}

// === impl Hook ===

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::Xdp => "lb_xdp",
            Self::XdpGeneral => "lb_xdp_general",
            Self::Ingress => "lb_tc_ingress",
            Self::Link => "lb_tc_link",
            Self::Egress => "lb_tc_egress",
        }
    }

    fn is_xdp(self) -> bool {
        matches!(self, Self::Xdp | Self::XdpGeneral)
    }

    /// The verdict that lets the stack have the packet.
    pub fn pass(self) -> u32 {
        if self.is_xdp() { XDP_PASS } else { TC_OK }
    }

    /// The verdict that ends it.
    pub fn drop(self) -> u32 {
        if self.is_xdp() { XDP_DROP } else { TC_SHOT }
    }
}

// === impl Sizes ===

impl Default for Sizes {
    fn default() -> Self {
        Self {
            tcp4: FLOWS,
            half: FLOWS,
            new_flows: NEW_FLOWS,
            tx_by_redirect: 0,
        }
    }
}

// === impl Out ===

impl Out {
    /// Demands this verdict and exactly this frame.
    #[track_caller]
    pub fn must_be(&self, verdict: u32, wanted: &Frame) {
        self.must_be_bytes(verdict, &wanted.bytes());
    }

    /// As [`Out::must_be`], by bytes.
    #[track_caller]
    pub fn must_be_bytes(&self, verdict: u32, wanted: &[u8]) {
        assert!(
            self.verdict == verdict && self.bytes == wanted,
            "\n verdict {}, want {verdict}\n out  {}\n want {}",
            self.verdict,
            hex(&self.bytes),
            hex(wanted)
        );
    }
}

// === impl Rig ===

impl Rig {
    /// The XDP and tc programs with empty maps and no pins, for a thread that is moved into a network namespace of its
    /// own, so that no route of this machine has a say. Another test of this process may have had them before.
    pub fn new() -> Self {
        Self::guarded(NEW_FLOWS)
    }

    /// As [`Rig::new`], with so many new flows a second for each CPU.
    pub fn guarded(new_flows: u32) -> Self {
        Self::sized(Sizes {
            new_flows,
            ..Sizes::default()
        })
    }

    /// As [`Rig::new`], of this size.
    pub fn sized(sizes: Sizes) -> Self {
        leave_networks();
        Self::shared(sizes)
    }

    /// As [`Rig::new`], where XDP transmits nothing itself; if it may redirect nowhere either, as in generic mode.
    pub fn redirecting() -> Self {
        Self::sized(Sizes {
            tx_by_redirect: 1,
            ..Sizes::default()
        })
    }

    /// As [`Rig::new`], of programs that are built to say in words what they do.
    pub fn talking() -> Self {
        leave_networks();
        Self::with_maps(&talking_object(), &Sizes::default()).with_packet_programs()
    }

    /// As [`Rig::here`], or what another test gave back.
    fn shared(sizes: Sizes) -> Self {
        Self {
            object: Lent::shared(sizes, || Self::here(&sizes).object),
        }
    }

    /// As [`Rig::new`] in the network namespace that the thread is in, of this size, and loaded for this test alone.
    pub fn here(sizes: &Sizes) -> Self {
        Self::with_maps(lb_agent::datapath::object_bytes(), sizes).with_packet_programs()
    }

    /// Loads every program that there is.
    pub fn with_every_program() -> Self {
        Self::every_program_of(lb_agent::datapath::object_bytes())
    }

    /// As [`Rig::with_every_program`], of those that are built to say in words what they do.
    pub fn talking_with_every_program() -> Self {
        Self::every_program_of(&talking_object())
    }

    fn every_program_of(object: &[u8]) -> Self {
        let mut rig = Self::with_maps(object, &Sizes::default());
        for (name, program) in rig.object.programs_mut() {
            load(name, program);
        }
        rig
    }

    fn with_packet_programs(mut self) -> Self {
        for hook in [
            Hook::Xdp,
            Hook::XdpGeneral,
            Hook::Ingress,
            Hook::Link,
            Hook::Egress,
        ] {
            load(hook.name(), self.object.program_mut(hook.name()).unwrap());
        }
        lb_agent::datapath::join_stages(&mut self.object).unwrap();
        self
    }

    fn with_maps(object: &[u8], sizes: &Sizes) -> Self {
        let mut loader = EbpfLoader::new();
        loader.override_global("NEW_FLOWS", &sizes.new_flows, true);
        loader.override_global("TX_BY_REDIRECT", &sizes.tx_by_redirect, true);
        for map in SMALL_MAPS {
            loader.map_max_entries(map, SMALL);
        }
        for map in FLOW_MAPS {
            loader.map_max_entries(map, FLOWS);
        }
        loader.map_max_entries("LB_FLOWS_TCP4", sizes.tcp4);
        loader.map_max_entries("LB_FLOWS_HALF4", sizes.half);
        loader.map_max_entries("LB_FLOWS_HALF6", sizes.half);
        let object = loader.load(object).unwrap_or_else(|error| {
            panic!("packet tests need root; the kernel refused a map: {error}")
        });
        Self {
            object: Lent::alone(object),
        }
    }

    /// The kernel's number for its XDP program: another one whenever it is loaded.
    pub fn id(&self) -> u32 {
        let program = self.object.program(Hook::Xdp.name()).unwrap();
        program.info().unwrap().id()
    }

    /// A program of [`Rig::here`], to be called by another one.
    pub fn program(&self, hook: Hook) -> ProgramFd {
        assert!(
            !self.object.is_shared(),
            "another test may have this program next"
        );
        let program = self.object.program(hook.name()).unwrap();
        program.fd().unwrap().try_clone().unwrap()
    }

    /// Attaches the XDP program in the driver of an interface, until the link is dropped.
    pub fn attach_xdp(&mut self, ifindex: u32) -> XdpLink {
        // Packets may be on their way through it when it is detached.
        self.object.keep_from_others();
        let program = self.object.program_mut(Hook::Xdp.name()).unwrap();
        let program: &mut Xdp = program.try_into().unwrap();
        let link = program.attach_to_if_index(ifindex, XdpMode::Driver);
        program.take_link(link.unwrap()).unwrap()
    }

    /// How many instructions the verifier walked in each program that is loaded (kernel 5.16).
    pub fn walked(&self) -> Vec<(String, u32)> {
        let count = |program: &Program| program.info().unwrap().verified_instruction_count();
        self.object
            .programs()
            .map(|(name, program)| (name.to_owned(), count(program).unwrap()))
            .collect()
    }

    /// Runs a program on a frame that came in by no interface in particular.
    pub fn run(&self, hook: Hook, frame: &Frame) -> Out {
        self.run_bytes(hook, &frame.bytes())
    }

    /// As [`Rig::run`], by bytes.
    pub fn run_bytes(&self, hook: Hook, bytes: &[u8]) -> Out {
        self.run_from(hook, bytes, 0)
    }

    /// As [`Rig::run_bytes`], on a packet that came in by the interface of this index; 0: none.
    pub fn run_from(&self, hook: Hook, bytes: &[u8], ifindex: u32) -> Out {
        let mut room = vec![0; ROOM];
        let context = match (hook, ifindex) {
            (_, 0) => None,
            // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
            (hook, _) if hook.is_xdp() => Some(words(&[0, bytes.len() as u32, 0, ifindex, 0, 0])),
            // `struct __sk_buff`: the tenth and eleventh words are ingress_ifindex and ifindex.
            _ => Some(words(&[0, 0, 0, 0, 0, 0, 0, 0, 0, ifindex, ifindex])),
        };
        let options = TestRunOptions {
            data_in: Some(bytes),
            data_out: Some(&mut room),
            ctx_in: context.as_deref(),
            ..TestRunOptions::new()
        };
        let result = match self.object.program(hook.name()).unwrap() {
            Program::Xdp(program) => Xdp::test_run(program, options),
            Program::SchedClassifier(program) => SchedClassifier::test_run(program, options),
            other => panic!("{} is a {:?}", hook.name(), other.prog_type()),
        }
        .unwrap_or_else(|error| panic!("{hook:?} did not run: {error:?}"));
        room.truncate(result.data_size_out as usize);
        Out {
            verdict: result.return_value,
            bytes: room,
        }
    }

    /// Runs a program so often in a row on what it left of the packet; gives that number and the last verdict.
    pub fn run_often(&self, hook: Hook, bytes: &[u8], repeat: u32) -> (u64, u32) {
        let options = TestRunOptions {
            data_in: Some(bytes),
            repeat,
            ..TestRunOptions::new()
        };
        let result = match self.object.program(hook.name()).unwrap() {
            Program::Xdp(program) => Xdp::test_run(program, options),
            Program::SchedClassifier(program) => SchedClassifier::test_run(program, options),
            other => panic!("{} is a {:?}", hook.name(), other.prog_type()),
        }
        .unwrap_or_else(|error| panic!("{hook:?} did not run: {error:?}"));
        (repeat.into(), result.return_value)
    }

    /// As [`Rig::run`] for a tc program, with the packet's sum made by the device: the kernel checks
    /// that the sum still holds afterwards.
    ///
    /// # Errors
    ///
    /// `EBADMSG` if it does not.
    pub fn run_summed(&self, hook: Hook, frame: &Frame) -> std::io::Result<Out> {
        self.run_summed_bytes(hook, &frame.bytes())
    }

    /// As [`Rig::run_summed`], by bytes.
    ///
    /// # Errors
    ///
    /// `EBADMSG` if the sum does not hold.
    pub fn run_summed_bytes(&self, hook: Hook, bytes: &[u8]) -> std::io::Result<Out> {
        let Program::SchedClassifier(program) = self.object.program(hook.name()).unwrap() else {
            panic!("{hook:?} is no tc program");
        };
        let mut room = vec![0; ROOM];
        let (verdict, len) = sys::run_summed(program.fd().unwrap().as_fd(), bytes, &mut room)?;
        room.truncate(len as usize);
        Ok(Out {
            verdict,
            bytes: room,
        })
    }

    /// Runs a program and demands this verdict and exactly this frame.
    #[track_caller]
    pub fn expect(&self, hook: Hook, frame: &Frame, verdict: u32, wanted: &Frame) {
        self.run(hook, frame).must_be(verdict, wanted);
    }

    /// As [`Rig::expect`] for a frame that came in by the interface of this index.
    #[track_caller]
    pub fn expect_from(
        &self,
        ifindex: u32,
        hook: Hook,
        frame: &Frame,
        verdict: u32,
        wanted: &Frame,
    ) {
        self.run_from(hook, &frame.bytes(), ifindex)
            .must_be(verdict, wanted);
    }

    /// Runs a program and demands that the stack gets the frame as it was.
    #[track_caller]
    pub fn expect_untouched(&self, hook: Hook, frame: &Frame) {
        self.expect(hook, frame, hook.pass(), frame);
    }

    /// Runs a program and demands that the frame is dropped.
    #[track_caller]
    pub fn expect_dropped(&self, hook: Hook, frame: &Frame) {
        self.expect(hook, frame, hook.drop(), frame);
    }
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(2)
        .map(|pair| pair.iter().map(|b| format!("{b:02x}")).collect::<String>())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Moves the thread into a network namespace of its own.
fn leave_networks() {
    sys::new_network().unwrap_or_else(|error| {
        panic!(
            "packet tests need root, to load kernel programs and make network namespaces: {error}"
        )
    });
}

/// The programs as they are with the feature `trace`.
fn talking_object() -> Vec<u8> {
    let path = env::var_os("LB_WORDS_OBJECT");
    let path = path.expect("LB_WORDS_OBJECT; `cargo xtask test packet` builds it and says where");
    fs::read(path).expect("it is there")
}

fn load(name: &str, program: &mut Program) {
    lb_agent::datapath::load_program(program)
        .unwrap_or_else(|error| panic!("the kernel refused {name}: {error:#}"));
}
