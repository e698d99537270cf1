//! The network: one link a pair of nodes, each with a number that is odd while it works, and ways that are cut.

use fastrand::Rng;

/// Links and cuts between nodes, by their index.
#[derive(Debug)]
pub(super) struct Network {
    members: usize,
    links: Vec<u64>,
    cuts: Vec<bool>,
}

impl Network {
    pub(super) fn new(members: usize) -> Network {
        Network { members, links: vec![0; members * members], cuts: vec![false; members * members] }
    }

    /// The number of the link between two nodes.
    pub(super) fn link(&self, a: usize, b: usize) -> u64 {
        self.links[a.min(b) * self.members + a.max(b)]
    }

    /// Whether messages from `a` reach `b` now.
    pub(super) fn works(&self, a: usize, b: usize) -> bool {
        self.link(a, b) % 2 == 1
    }

    /// Makes a link work, or break.
    pub(super) fn turn(&mut self, a: usize, b: usize) {
        self.links[a.min(b) * self.members + a.max(b)] += 1;
    }

    /// Whether nothing goes from one node to the other, without either knowing.
    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from * self.members + to]
    }

    /// Cuts every way from a node of one side to one of the other.
    pub(super) fn cut(&mut self, from: &[usize], to: &[usize]) {
        for from in from {
            for to in to {
                self.cuts[from * self.members + to] = true;
            }
        }
    }

    /// Mends the ways between a node and all others.
    pub(super) fn mend(&mut self, node: usize) {
        for other in 0..self.members {
            self.cuts[node * self.members + other] = false;
            self.cuts[other * self.members + node] = false;
        }
    }

    /// The nodes in two random halves, none empty.
    pub(super) fn halves(&self, random: &mut Rng) -> (Vec<usize>, Vec<usize>) {
        let mut nodes: Vec<usize> = (0..self.members).collect();
        random.shuffle(&mut nodes);
        let second = nodes.split_off(random.usize(1..self.members));
        (nodes, second)
    }
}
