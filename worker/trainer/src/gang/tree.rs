//! The one order in which what shards contribute is added up: a binary tree over the shards.
//!
//! Floating-point addition is not associative, so the order is part of the result. A node covers shards
//! `[i·2ˡ, (i + 1)·2ˡ)`, cut off at the number of shards, and its sum is that of its left half plus that of its right.
//! Whoever carries a whole node can add it up alone; what ranks exchange are the sums of their largest whole nodes.
//! Pure arithmetic on numbers of shards: it knows no tensors.

use spotsweep_proto::gang::Shares;
use std::ops::Range;

/// A node of the tree over the shards of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its first shard.
    pub start: u32,
    /// Shards that it would cover if there were enough: a power of two that divides `start`.
    span: u32,
    /// Behind its last shard.
    pub end: u32,
}

impl Node {
    fn new(start: u32, span: u32, shards: u32) -> Self {
        Self { start, span, end: start.saturating_add(span).min(shards) }
    }

    /// The node over all of `shards` shards.
    #[must_use]
    pub fn root(shards: u32) -> Self {
        Self::new(0, shards.max(1).next_power_of_two(), shards)
    }

    /// Its halves; `None` for a single shard. A node whose right half holds no shard is its left half.
    #[must_use]
    pub fn halves(self) -> Option<(Self, Self)> {
        let half = self.span / 2;
        let middle = self.start + half;
        if half == 0 || self.end - self.start == 1 {
            None
        } else if middle >= self.end {
            Self { span: half, ..self }.halves()
        } else {
            Some((Self { span: half, end: middle, ..self }, Self { start: middle, span: half, ..self }))
        }
    }

    /// The fewest nodes that cover `range` of `shards` shards, in order.
    #[must_use]
    pub fn covering(range: Range<u32>, shards: u32) -> Vec<Self> {
        let mut nodes = Vec::new();
        Self::root(shards).collect(&range, &mut nodes);
        nodes
    }

    fn collect(self, range: &Range<u32>, nodes: &mut Vec<Self>) {
        if self.end <= range.start || range.end <= self.start {
            return;
        }
        match self.halves() {
            Some((left, right)) if self.start < range.start || range.end < self.end => {
                left.collect(range, nodes);
                right.collect(range, nodes);
            }
            _ => nodes.push(self),
        }
    }
}

/// How the sums of nodes become the sum of all: pairs `(left, right)` of places in a list, of which the right one is
/// added to the left one, in this order; the sum of all is then at place 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The nodes of each rank, in order; put together they are the list.
    pub of_ranks: Vec<Vec<Node>>,
    /// The additions.
    pub additions: Vec<(usize, usize)>,
}

impl Plan {
    /// For ranks that carry `shares`.
    #[must_use]
    pub fn new(shares: &Shares) -> Self {
        let of_ranks: Vec<Vec<Node>> =
            (0..shares.ranks()).map(|rank| Node::covering(shares.of(rank), shares.shards())).collect();
        let all: Vec<Node> = of_ranks.iter().flatten().copied().collect();
        let mut additions = Vec::new();
        add_up(Node::root(shares.shards()), &all, &mut additions);
        Self { of_ranks, additions }
    }
}

/// The additions that put the sum of `node` at the place of the first of `all` that lies in it; gives that place.
fn add_up(node: Node, all: &[Node], additions: &mut Vec<(usize, usize)>) -> usize {
    let covers = |leaf: &Node| leaf.start == node.start && leaf.end == node.end;
    if let (None, Some((left, right))) = (all.iter().position(covers), node.halves()) {
        let (into, from) = (add_up(left, all, additions), add_up(right, all, additions));
        additions.push((into, from));
        into
    } else {
        all.iter().position(|leaf| leaf.start == node.start).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The sum of a node as text: what is added to what.
    fn text(node: Node) -> String {
        match node.halves() {
            Some((left, right)) => format!("({}+{})", text(left), text(right)),
            None => node.start.to_string(),
        }
    }

    /// The same, put together by ranks.
    fn text_of(shares: &Shares) -> String {
        let plan = Plan::new(shares);
        let mut sums: Vec<String> = plan.of_ranks.iter().flatten().map(|node| text(*node)).collect();
        for &(into, from) in &plan.additions {
            sums[into] = format!("({}+{})", sums[into], sums[from]);
        }
        sums[0].clone()
    }

    #[test]
    fn the_tree_pairs_neighbours_and_a_lone_last_shard_joins_late() {
        assert_eq!(text(Node::root(4)), "((0+1)+(2+3))");
        assert_eq!(text(Node::root(5)), "(((0+1)+(2+3))+4)");
        assert_eq!(text(Node::root(7)), "(((0+1)+(2+3))+((4+5)+6))");
        assert_eq!(text(Node::root(1)), "0");
    }

    #[test]
    fn ranks_with_aligned_shares_have_one_sum_each() {
        for ranks in [1, 2, 4, 8, 64] {
            assert!(Plan::new(&Shares::even(64, ranks)).of_ranks.iter().all(|nodes| nodes.len() == 1));
        }
        let spans = |rank: usize| -> Vec<(u32, u32)> {
            Plan::new(&Shares::even(8, 3)).of_ranks[rank].iter().map(|n| (n.start, n.end)).collect()
        };
        assert_eq!(
            (spans(0), spans(1), spans(2)),
            (vec![(0, 2), (2, 3)], vec![(3, 4), (4, 6)], vec![(6, 8)])
        );
    }

    proptest! {
        #[test]
        fn what_is_added_to_what_does_not_depend_on_the_ranks(shards in 1u32..=256, seed in any::<u64>()) {
            let mut starts = vec![0];
            starts.extend((1..shards).filter(|s| (seed.rotate_left(*s) ^ u64::from(s * 7919)) % 3 == 0));
            let shares = Shares::new(starts, shards).unwrap();
            prop_assert_eq!(text_of(&shares), text(Node::root(shards)));
        }

        #[test]
        fn a_rank_s_nodes_cover_its_shards_and_are_few(shards in 1u32..=256, a in 0u32..256, b in 0u32..256) {
            let (start, end) = (a.min(b) % shards, (a.max(b) % shards) + 1);
            prop_assume!(start < end);
            let nodes = Node::covering(start..end, shards);
            let covered: Vec<u32> = nodes.iter().flat_map(|n| n.start..n.end).collect();
            prop_assert_eq!(covered, (start..end).collect::<Vec<_>>());
            prop_assert!(nodes.len() <= 2 * 8);
        }
    }
}
