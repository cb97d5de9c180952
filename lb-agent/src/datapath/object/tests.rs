//! The stack frames of the kernel programs, read from the object: an older kernel asks more of them than the one that
//! other tests load them on.

use std::collections::{BTreeMap, BTreeSet};

use object::{
    File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, Section, SymbolKind,
};

use super::OBJECT;

/// Bytes of all frames along a chain of calls (`MAX_BPF_STACK` in `include/linux/filter.h`).
const STACK: u64 = 512;

/// What each frame is rounded up to, an empty one as well (`check_max_stack_depth` in `kernel/bpf/verifier.c`). Newer
/// kernels round to 16 where programs are compiled, so that one that they load may be refused by an older one.
const ROUND: u64 = 32;

/// Bytes of an instruction; the load of 64 bits is two.
const INSN: u64 = 8;
const LOAD_64: u8 = 0x18;
const CALL: u8 = 0x85;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
/// In the low bits of an operation.
const CLASS: u8 = 7;
const LOAD: u8 = 1;
const STORE: u8 = 2;
const STORE_REGISTER: u8 = 3;
const JUMP: u8 = 5;
const JUMP_32: u8 = 6;
/// A call leaves nothing in the registers up to this one but its result.
const LAST_ARGUMENT: usize = 5;
/// The register that holds where the frame ends.
const FRAME_END: usize = 10;
/// `BPF_PSEUDO_CALL`: the call is to a function of the object, not to the kernel.
const OF_OBJECT: usize = 1;

struct Function {
    name: String,
    is_program: bool,
    /// Bytes.
    frame: u64,
    calls: BTreeSet<Place>,
}

/// Where a function begins: the number of its section, and bytes from there.
type Place = (usize, u64);

struct Insn {
    op: u8,
    dst: usize,
    src: usize,
    offset: i64,
    value: i64,
}

impl Insn {
    fn of(bytes: &[u8]) -> Self {
        let bytes: [u8; INSN as usize] = bytes.try_into().unwrap();
        let [op, registers, o0, o1, v0, v1, v2, v3] = bytes;
        Self {
            op,
            dst: usize::from(registers & 15),
            src: usize::from(registers >> 4),
            offset: i16::from_le_bytes([o0, o1]).into(),
            value: i32::from_le_bytes([v0, v1, v2, v3]).into(),
        }
    }
}

fn functions() -> BTreeMap<Place, Function> {
    let object = File::parse(OBJECT).unwrap();
    object
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        .map(|symbol| {
            let section = object
                .section_by_index(symbol.section_index().unwrap())
                .unwrap();
            let place = (section.index().0, symbol.address());
            let insns = insns(&section, symbol.address(), symbol.size());
            let calls = insns
                .iter()
                .filter(|(_, insn)| insn.op == CALL && insn.src == OF_OBJECT)
                .map(|(at, insn)| callee(&object, &section, *at, insn))
                .collect();
            let function = Function {
                name: symbol.name().unwrap().to_owned(),
                is_program: section.name() != Ok(".text"),
                frame: frame(insns.iter().map(|(_, insn)| insn)),
                calls,
            };
            (place, function)
        })
        .collect()
}

/// With the offset of each in the section.
fn insns(section: &Section<'_, '_>, start: u64, len: u64) -> Vec<(u64, Insn)> {
    let bytes = section.data_range(start, len).unwrap().unwrap();
    let mut insns = Vec::new();
    let mut at = 0;
    while let Some(bytes) = bytes.get(at..at + INSN as usize) {
        let insn = Insn::of(bytes);
        let words = if insn.op == LOAD_64 { 2 } else { 1 };
        insns.push((start + at as u64, insn));
        at += words * INSN as usize;
    }
    insns
}

/// Where a call goes: to the symbol that its relocation names, or so many instructions on.
fn callee(object: &File<'_>, section: &Section<'_, '_>, at: u64, insn: &Insn) -> Place {
    let on = (insn.value + 1) * INSN as i64;
    let Some((_, relocation)) = section.relocations().find(|(offset, _)| *offset == at) else {
        return (section.index().0, at.checked_add_signed(on).unwrap());
    };
    let RelocationTarget::Symbol(index) = relocation.target() else {
        panic!("a call to {:?}", relocation.target());
    };
    let symbol = object.symbol_by_index(index).unwrap();
    let start = if symbol.kind() == SymbolKind::Section {
        on.try_into().unwrap()
    } else {
        symbol.address()
    };
    (symbol.section_index().unwrap().0, start)
}

/// How far below its end a frame is used. Along a function as it stands, a register is the end of the frame, or so far
/// from it, until it is something else.
fn frame<'a>(insns: impl Iterator<Item = &'a Insn>) -> u64 {
    let mut pointers = [None; FRAME_END + 1];
    pointers[FRAME_END] = Some(0);
    let mut lowest = 0;
    for insn in insns {
        let used = match insn.op & CLASS {
            STORE | STORE_REGISTER => pointers[insn.dst].map(|from| from + insn.offset),
            LOAD => {
                let used = pointers[insn.src].map(|from| from + insn.offset);
                pointers[insn.dst] = None;
                used
            }
            JUMP | JUMP_32 => {
                if insn.op == CALL {
                    pointers[..=LAST_ARGUMENT].fill(None);
                }
                None
            }
            _ => {
                pointers[insn.dst] = match insn.op {
                    MOVE => pointers[insn.src],
                    ADD => pointers[insn.dst].map(|from| from + insn.value),
                    _ => None,
                };
                pointers[insn.dst]
            }
        };
        lowest = lowest.min(used.unwrap_or(0));
    }
    lowest.unsigned_abs()
}

/// The chain of calls from a function on that takes the most, and what it takes.
fn deepest<'a>(
    functions: &'a BTreeMap<Place, Function>,
    from: &'a Function,
) -> (u64, Vec<&'a Function>) {
    let (below, mut chain) = from
        .calls
        .iter()
        .map(|place| deepest(functions, &functions[place]))
        .max_by_key(|(taken, _)| *taken)
        .unwrap_or_default();
    chain.insert(0, from);
    (below + from.frame.max(1).next_multiple_of(ROUND), chain)
}

fn told(chain: &[&Function]) -> String {
    let frames: Vec<_> = chain
        .iter()
        .map(|function| format!("{} {}", function.name, function.frame))
        .collect();
    frames.join(" > ")
}

#[test]
fn the_frames_of_every_chain_of_calls_fit_the_stack_of_the_oldest_kernel() {
    let functions = functions();
    let programs: Vec<_> = functions.values().filter(|f| f.is_program).collect();
    assert!(programs.len() >= 17, "of {} programs", programs.len());
    for program in programs {
        let (taken, chain) = deepest(&functions, program);
        println!("{taken} of {STACK} bytes: {}", told(&chain));
        assert!(taken <= STACK, "{taken} of {STACK} bytes: {}", told(&chain));
    }
}

#[test]
fn a_frame_reaches_down_to_what_is_stored_loaded_or_given_away() {
    let frame_of = |insns: &[[u8; 8]]| {
        let insns: Vec<_> = insns.iter().map(|bytes| Insn::of(bytes)).collect();
        frame(insns.iter())
    };
    // r1 = *(u64 *)(r6 - 64): of something else.
    let elsewhere = [0x79, 0x61, 0xc0, 0xff, 0, 0, 0, 0];
    assert_eq!(frame_of(&[elsewhere]), 0);
    // *(u64 *)(r10 - 8) = r1
    let stored = [0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0];
    assert_eq!(frame_of(&[elsewhere, stored]), 8);
    // r1 = *(u64 *)(r10 - 16)
    let loaded = [0x79, 0xa1, 0xf0, 0xff, 0, 0, 0, 0];
    assert_eq!(frame_of(&[stored, loaded]), 16);
    // r2 = r10; r2 += -24
    let copied = [0xbf, 0xa2, 0, 0, 0, 0, 0, 0];
    let lowered = [0x07, 0x02, 0, 0, 0xe8, 0xff, 0xff, 0xff];
    assert_eq!(frame_of(&[copied, stored, lowered]), 24);
    // r2 = r6
    let replaced = [0xbf, 0x62, 0, 0, 0, 0, 0, 0];
    assert_eq!(frame_of(&[copied, replaced, lowered]), 0);
}
