//! Everything that the nodes have in memory, on disk and said, in as few bytes as possible.

use super::steps::{At, Local};
use super::words::{Messages, Words};

/// One node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    pub local: Local,
    /// Payloads in memory.
    pub holds: Words,
    /// Payloads on disk.
    pub stored: Words,
    /// Records on disk.
    pub disk: Messages,
    /// What may still reach the others.
    pub said: Messages,
}

/// A state of the search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct World<const N: usize> {
    pub nodes: [Node; N],
    /// Everything that was ever decided.
    pub decided: Words,
    /// Decisions that may still reach somebody though whoever made them has forgotten.
    pub told: Words,
    /// The batches that a state or vote ever named: heads may take them.
    pub named: Words,
    pub restarts: u8,
    pub deaths: u8,
}

/// A world in few bits. In words of four bytes, so that none is lost to alignment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Packed<const N: usize> {
    nodes: [[u32; 2]; N],
    rest: u32,
}

const PLACES: [At; 9] = [
    At::Silent,
    At::Proposed,
    At::Stated,
    At::SavingVote,
    At::Voted,
    At::SavingState,
    At::Decided,
    At::Settled,
    At::Dead,
];

/// Puts values into bits, and takes them out in the opposite order.
struct Bits(u64);

impl Bits {
    fn put(&mut self, width: u32, value: u64) {
        debug_assert!(value < 1 << width && self.0.leading_zeros() >= width);
        self.0 = self.0 << width | value;
    }

    fn take(&mut self, width: u32) -> u64 {
        let value = self.0 & ((1 << width) - 1);
        self.0 >>= width;
        value
    }
}

impl Node {
    fn pack(&self) -> u64 {
        let Local { at, phase, last } = self.local;
        let mut bits = Bits(0);
        // Nothing but states and votes is on disk.
        bits.put(Messages::BITS - 4, self.disk.pack() >> 4);
        bits.put(Messages::BITS, self.said.pack());
        bits.put(2, u64::from(self.stored >> 1));
        bits.put(2, u64::from(self.holds >> 1));
        bits.put(2, u64::from(last.trailing_zeros() & 3));
        bits.put(2, u64::from(phase));
        bits.put(4, at as u64);
        bits.0
    }

    fn unpack(bits: u64) -> Node {
        let mut bits = Bits(bits);
        let at = PLACES[bits.take(4) as usize];
        let phase = bits.take(2) as u8;
        let last = 1 << bits.take(2);
        let local = match at {
            At::Silent => Local::SILENT,
            At::Dead => Local::DEAD,
            at => Local { at, phase, last },
        };
        let holds = (bits.take(2) << 1) as Words;
        let stored = (bits.take(2) << 1) as Words;
        let said = Messages::unpack(bits.take(Messages::BITS));
        let disk = Messages::unpack(bits.take(Messages::BITS - 4) << 4);
        Node { local, holds, stored, disk, said }
    }
}

impl<const N: usize> World<N> {
    /// Nobody has said anything. The nodes hold these payloads, only in memory.
    pub fn new(holds: [Words; N]) -> World<N> {
        let node = |holds| Node {
            local: Local::SILENT,
            holds,
            stored: 0,
            disk: Messages::default(),
            said: Messages::default(),
        };
        World { nodes: holds.map(node), decided: 0, told: 0, named: 0, restarts: 0, deaths: 0 }
    }

    /// With the nodes in order where they are interchangeable.
    pub fn pack(&self, interchangeable: bool) -> Packed<N> {
        let mut nodes = self.nodes.map(|node| node.pack());
        if interchangeable {
            nodes.sort_unstable();
        }
        let mut rest = Bits(0);
        for words in [self.decided, self.told, self.named] {
            rest.put(4, u64::from(words));
        }
        rest.put(4, u64::from(self.restarts));
        rest.put(4, u64::from(self.deaths));
        Packed { nodes: nodes.map(|bits| [bits as u32, (bits >> 32) as u32]), rest: rest.0 as u32 }
    }

    pub fn unpack(packed: &Packed<N>) -> World<N> {
        let nodes = packed.nodes.map(|[low, high]| Node::unpack(u64::from(high) << 32 | u64::from(low)));
        let mut rest = Bits(u64::from(packed.rest));
        let deaths = rest.take(4) as u8;
        let restarts = rest.take(4) as u8;
        let mut words = || rest.take(4) as Words;
        let (named, told, decided) = (words(), words(), words());
        World { nodes, decided, told, named, restarts, deaths }
    }

    /// The other nodes, with their places.
    pub fn others(&self, index: usize) -> impl Iterator<Item = &Node> {
        self.nodes.iter().enumerate().filter(move |(other, _)| *other != index).map(|(_, node)| node)
    }
}
