//! The benchmarks' own kernel programs (`lb-ebpf/src/bench`): the wrapper and the floors.
// What measures may panic, as what tests: a wrong set-up must not give a figure.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(unsafe_code)]

#[path = "../../../lb-ebpf/src/bench/setup.rs"]
mod setup;

use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{
        Array, HashMap, HashOfMaps, LpmTrie, MapData, PerCpuArray, ProgramArray, lpm_trie::Key,
    },
    programs::{ProgramFd, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode, xdp::XdpLink},
};

use crate::packet::{Out, entry_bytes, sys::empty, words};
pub use setup::{Setup, WORDS};

// SAFETY: integers without padding, as its size is asserted to be.
unsafe impl Pod for Setup {}

/// Steps in which flows are visited: odd, so that every one of 2^n flows has its turn, and so large that
/// neighbours in time are no neighbours in memory, which prefetching would favour.
const STRIDE: u64 = 0x9e37_79b1;

/// Room for what comes out.
const ROOM: usize = 4096;

/// Frames that are sent before the softirq has its turn: as many as a driver's poll takes.
const BATCH: u32 = 64;

/// Programs and tables of the floors, one benchmark's alone.
pub struct Floors {
    object: Ebpf,
    ifindex: u32,
}

// === impl Setup ===

impl Setup {
    /// Gives every run this packet.
    pub fn of(packet: &[u8]) -> Self {
        let mut head = [0; WORDS];
        for (word, bytes) in head.iter_mut().zip(packet.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap());
        }
        let family = if packet[12..14] == [0x08, 0x00] { 4 } else { 6 };
        Self {
            head,
            run: 0,
            mask: 0,
            stride: STRIDE,
            len: packet.len() as u32,
            family,
            grows: 0,
            swing: 0,
            ifindex: 0,
            onward: 0,
        }
    }

    /// The same of so many flows, a power of two.
    #[must_use]
    pub fn over(self, flows: u32) -> Self {
        assert!(flows.is_power_of_two());
        Self {
            mask: u64::from(flows - 1),
            ..self
        }
    }

    /// The same with the flows one after the other, from this one on.
    #[must_use]
    pub fn in_order(self, first: u32) -> Self {
        let run = u64::from(first);
        Self {
            stride: 1,
            run,
            ..self
        }
    }
}

// === impl Floors ===

impl Floors {
    /// Loads them; packets come in by the interface of this index, there is room for so many entries of
    /// IPv4 flows, and for as many as in a main table in the others.
    ///
    /// # Errors
    ///
    /// The object is not there, or the kernel refuses it.
    pub fn load(ifindex: u32, flows: u32, main: u32) -> Result<Self> {
        let path = env::var_os("LB_BENCH_OBJECT")
            .context("LB_BENCH_OBJECT is not set; run this by `cargo xtask bench` or `test`")?;
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("BENCH_FLOWS4", flows);
        for map in ["BENCH_NAT4", "BENCH_FLOWS6"] {
            loader.map_max_entries(map, main);
        }
        let mut object = loader.load(&bytes).context("the kernel refused a map")?;
        for (name, program) in object.programs_mut() {
            lb_agent::datapath::load_program(program)
                .with_context(|| format!("the kernel refused {name}"))?;
        }
        Ok(Self { object, ifindex })
    }

    /// Bytes of a table's key and value.
    pub fn entry_bytes(&self, map: &str) -> (u32, u32) {
        entry_bytes(self.object.map(map).expect(map))
    }

    /// One of the programs.
    ///
    /// # Panics
    ///
    /// There is none of this name.
    pub fn program(&self, name: &str) -> ProgramFd {
        let program = self.object.program(name).expect(name);
        program.fd().unwrap().try_clone().unwrap()
    }

    /// Runs a program so often, each time on the packet of this set-up; gives what the last run made.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn run(
        &mut self,
        program: &ProgramFd,
        setup: &Setup,
        packet: &[u8],
        runs: u32,
    ) -> Result<Out> {
        self.aim(program, setup)?;
        let mut room = vec![0; ROOM];
        let (verdict, len) = self.go(packet, runs, Some(&mut room))?;
        room.truncate(len);
        Ok(Out {
            verdict,
            bytes: room,
        })
    }

    /// Makes this the program under test, with runs counted from 0.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn aim(&mut self, program: &ProgramFd, setup: &Setup) -> Result<()> {
        let mut programs: ProgramArray<_> = self.map("BENCH_PROGRAM");
        programs.set(0, program, 0)?;
        let mut bench: Array<_, Setup> = self.map("BENCH");
        bench.set(0, *setup, 0)?;
        Ok(())
    }

    /// Runs the program under test; gives the last run's verdict and the length of what came out.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn go(&self, packet: &[u8], runs: u32, room: Option<&mut [u8]>) -> Result<(u32, usize)> {
        ensure!(packet.len() >= WORDS * 8, "the packet is too short");
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = words(&[0, packet.len() as u32, 0, self.ifindex, 0, 0]);
        let result = self
            .wrapper()
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: room,
                ctx_in: Some(&context),
                repeat: runs,
                ..TestRunOptions::new()
            })
            .context("the wrapper did not run")?;
        Ok((result.return_value, result.data_size_out as usize))
    }

    /// Sends so many frames of this set-up out of its interface, as fast as that goes.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn send(&mut self, setup: &Setup, packet: &[u8], frames: u32) -> Result<()> {
        let program = self.program("bench_send");
        self.aim(&program, setup)?;
        self.wrapper()
            .test_run(TestRunOptions {
                data_in: Some(packet),
                repeat: frames,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })
            .context("cannot send live frames")?;
        Ok(())
    }

    /// Frames that `bench_sink` has ended so far.
    pub fn arrived(&self) -> u64 {
        let map = self.object.map("BENCH_ARRIVED").unwrap();
        let map = PerCpuArray::<_, u64>::try_from(map).unwrap();
        map.get(&0, 0).unwrap().iter().sum()
    }

    /// Attaches a floor in the driver of an interface, until the link is dropped.
    pub fn attach(&mut self, program: &str, ifindex: u32) -> XdpLink {
        let program: &mut Xdp = self
            .object
            .program_mut(program)
            .unwrap()
            .try_into()
            .unwrap();
        let link = program.attach_to_if_index(ifindex, XdpMode::Driver);
        program.take_link(link.unwrap()).unwrap()
    }

    /// Empties the tables of flows.
    pub fn forget_flows(&self) {
        for map in ["BENCH_FLOWS4", "BENCH_FLOWS6"] {
            empty(self.object.map(map).unwrap()).unwrap();
        }
    }

    /// Has the one-lookup floor turn one packet into another.
    pub fn translate(&mut self, packet: &[u8], into: &[u8]) {
        let ifindex = self.ifindex;
        let half = |bytes: &[u8], at| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let word =
            |bytes: &[u8], at| u64::from(half(bytes, at)) | u64::from(half(bytes, at + 2)) << 16;
        let long = |bytes: &[u8], at| word(bytes, at) | word(bytes, at + 4) << 32;
        // What has to be added to an inverted checksum, in one's complement.
        let delta = |at| {
            let sum = u32::from(half(packet, at)) + u32::from(!half(into, at));
            u64::from((sum & 0xffff) + (sum >> 16))
        };
        let key: [u64; 2] = [
            long(packet, 26),
            word(packet, 34) | u64::from(packet[23]) << 32,
        ];
        let value: [u64; 4] = [
            long(into, 26),
            word(into, 34) | delta(24) << 32 | delta(50) << 48,
            long(into, 0),
            word(into, 8) | u64::from(ifindex) << 32,
        ];
        let mut nat: HashMap<_, [u64; 2], [u64; 4]> = self.map("BENCH_NAT4");
        nat.insert(key, value, 0).unwrap();
    }

    /// Fills what is found by a TCP packet's destination: filter, service, and by its source the prefix.
    pub fn know(&mut self, packet: &[u8]) {
        let word = |at: usize| u32::from_ne_bytes(packet[at..at + 4].try_into().unwrap());
        let (src, dst) = (word(26), word(30));
        let port = u64::from(u16::from_ne_bytes([packet[36], packet[37]]));
        let mut addrs: HashMap<_, u32, u32> = self.map("BENCH_ADDRS4");
        addrs.insert(dst, 1, 0).unwrap();
        let mut services: HashMap<_, u64, [u32; 4]> = self.map("BENCH_SERVICES4");
        let key = u64::from(dst) | port << 32 | 6 << 48;
        services.insert(key, [1; 4], 0).unwrap();
        let mut sources: LpmTrie<_, u32, u32> = self.map("BENCH_SOURCES4");
        sources.insert(&Key::new(16, src), 1, 0).unwrap();
        let index = u32::from(packet[36]);
        let mut backends: Array<_, [u32; 8]> = self.map("BENCH_BACKENDS");
        backends.set(index, [1; 8], 0).unwrap();
        let mut inner: Array<MapData, [u32; 1021]> = Array::create(1, 0).unwrap();
        inner.set(0, [1; 1021], 0).unwrap();
        let mut tables: HashOfMaps<_, u32, Array<MapData, [u32; 1021]>> = self.map("BENCH_TABLES");
        tables.insert(index, &inner, 0).unwrap();
    }

    fn wrapper(&self) -> &Xdp {
        let wrapper = self.object.program("bench_wrapper").unwrap();
        wrapper.try_into().unwrap()
    }

    fn map<'a, T>(&'a mut self, name: &str) -> T
    where
        T: TryFrom<&'a mut aya::maps::Map>,
        T::Error: std::fmt::Debug,
    {
        T::try_from(self.object.map_mut(name).expect(name)).unwrap()
    }
}
