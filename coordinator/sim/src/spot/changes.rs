//! A trace as it goes on for ever, for so many machines at most: its end is followed by its beginning. Each coming
//! is another machine, with a number of its own.

use super::trace::{Change, Trace};
use std::collections::{BTreeSet, VecDeque};

/// A machine comes or goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MachineChange {
    pub(crate) at_s: f64,
    /// Counted from 0, in order of coming.
    pub(crate) machine: usize,
    pub(crate) up: bool,
}

/// The endless trace.
pub(crate) struct Changes {
    trace: Trace,
    next: usize,
    /// Begin of this round of the trace.
    begin_s: f64,
    most: usize,
    /// The machine that a node is, while it is used.
    machine_of: Vec<Option<usize>>,
    used: usize,
    /// Nodes that are there beyond the limit.
    spare: BTreeSet<u32>,
    came: usize,
    ready: VecDeque<MachineChange>,
}

impl Changes {
    /// At most `most` machines at once. A zone is so many machines, which come and go together.
    pub(crate) fn new(mut trace: Trace, most: usize) -> Self {
        if trace.zone {
            let nodes = u32::try_from(most).unwrap_or(u32::MAX);
            let copies = |change: &Change| {
                let change = *change;
                (0..nodes).map(move |node| Change { node, ..change })
            };
            trace.changes = trace.changes.iter().flat_map(copies).collect();
            trace.nodes = nodes;
        }
        Self {
            machine_of: vec![None; trace.nodes as usize],
            trace,
            next: 0,
            begin_s: 0.0,
            most,
            used: 0,
            spare: BTreeSet::new(),
            came: 0,
            ready: VecDeque::new(),
        }
    }

    /// What happens next.
    pub(crate) fn next(&mut self) -> MachineChange {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            match self.trace.changes.get(self.next).copied() {
                Some(change) => {
                    self.next += 1;
                    self.apply(change);
                }
                None => self.begin_anew(),
            }
        }
    }

    fn apply(&mut self, change: Change) {
        let Change { at_s, node, up } = change;
        let at_s = self.begin_s + at_s;
        if up {
            if self.used < self.most {
                self.comes(node, at_s);
            } else {
                self.spare.insert(node);
            }
            return;
        }
        self.spare.remove(&node);
        if self.goes(node, at_s)
            && let Some(other) = self.spare.pop_first()
        {
            self.comes(other, at_s);
        }
    }

    fn comes(&mut self, node: u32, at_s: f64) {
        let machine = self.came;
        self.came += 1;
        self.used += 1;
        self.machine_of[node as usize] = Some(machine);
        self.ready.push_back(MachineChange { at_s, machine, up: true });
    }

    fn goes(&mut self, node: u32, at_s: f64) -> bool {
        let Some(machine) = self.machine_of[node as usize].take() else { return false };
        self.used -= 1;
        self.ready.push_back(MachineChange { at_s, machine, up: false });
        true
    }

    /// The trace begins again. Machines that are there stay as those that are there at its beginning, so that the
    /// seam interrupts only as many as are fewer then.
    fn begin_anew(&mut self) {
        self.begin_s += self.trace.length_s;
        self.spare.clear();
        let mut there: VecDeque<usize> = self.machine_of.iter_mut().filter_map(Option::take).collect();
        self.next = 0;
        let at_begin = |change: &Change| change.at_s == 0.0 && change.up;
        while let Some(change) = self.trace.changes.get(self.next).copied().filter(at_begin) {
            self.next += 1;
            match there.pop_front() {
                Some(machine) => self.machine_of[change.node as usize] = Some(machine),
                None => self.apply(change),
            }
        }
        self.used -= there.len();
        let at_s = self.begin_s;
        self.ready.extend(there.into_iter().map(|machine| MachineChange { at_s, machine, up: false }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(lines: &str, most: usize, count: usize) -> Vec<(f64, usize, bool)> {
        let mut changes = Changes::new(Trace::parse(lines.as_bytes(), "t").unwrap(), most);
        (0..count).map(|_| changes.next()).map(|c| (c.at_s, c.machine, c.up)).collect()
    }

    #[test]
    fn a_coming_is_another_machine_and_the_end_is_followed_by_the_beginning() {
        let lines = "0,add,a\n10000,remove,a\n15000,add,a\n20000,add,b\n";
        let expected = [
            (0.0, 0, true),
            (10.0, 0, false),
            (15.0, 1, true),
            (20.0, 2, true),
            // At the seam one of two stays; node a is machine 1 from then on.
            (20.0, 2, false),
            (30.0, 1, false),
            (35.0, 3, true),
        ];
        assert_eq!(first(lines, 9, 7), expected);
    }

    #[test]
    fn beyond_the_limit_machines_wait_for_others_to_go() {
        let lines = "0,add,a\n1000,add,b\n2000,add,c\n3000,remove,b\n10000,remove,a\n20000,remove,c\n";
        assert_eq!(
            first(lines, 1, 5),
            [(0.0, 0, true), (10.0, 0, false), (10.0, 1, true), (20.0, 1, false), (20.0, 2, true)]
        );
    }

    #[test]
    fn a_zone_is_so_many_machines_that_come_and_go_together() {
        let json = r#"{"metadata": {"gap_seconds": 60}, "data": [0, 1, 0]}"#;
        let expected = [
            (0.0, 0, true),
            (0.0, 1, true),
            (60.0, 0, false),
            (60.0, 1, false),
            (120.0, 2, true),
            (120.0, 3, true),
            (240.0, 2, false),
            (240.0, 3, false),
        ];
        assert_eq!(first(json, 2, 8), expected);
    }
}
