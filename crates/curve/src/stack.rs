//! Weights in the order of their last use: a Fenwick tree over moments.

/// Sums of weights by moment, both in O(log n).
#[derive(Debug)]
pub(crate) struct Stack {
    tree: Vec<u64>,
    total: u64,
}

impl Stack {
    /// For moments below `moments`.
    pub(crate) fn new(moments: u32) -> Self {
        Self { tree: vec![0; moments as usize + 1], total: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.tree.fill(0);
        self.total = 0;
    }

    pub(crate) fn add(&mut self, moment: u32, weight: u64) {
        self.change(moment, |sum| *sum += weight);
        self.total += weight;
    }

    pub(crate) fn remove(&mut self, moment: u32, weight: u64) {
        self.change(moment, |sum| *sum -= weight);
        self.total -= weight;
    }

    /// The weight of all that came after `moment`.
    pub(crate) fn above(&self, moment: u32) -> u64 {
        let (mut at, mut below) = (moment as usize + 1, 0);
        while at > 0 {
            below += self.tree[at];
            at &= at - 1;
        }
        self.total - below
    }

    fn change(&mut self, moment: u32, change: impl Fn(&mut u64)) {
        let mut at = moment as usize + 1;
        while at < self.tree.len() {
            change(&mut self.tree[at]);
            at += at & at.wrapping_neg();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_later_is_above() {
        let mut stack = Stack::new(8);
        for (moment, weight) in [(0, 5), (3, 7), (7, 1)] {
            stack.add(moment, weight);
        }
        assert_eq!([0, 2, 3, 7].map(|moment| stack.above(moment)), [8, 8, 1, 0]);
        stack.remove(3, 7);
        assert_eq!(stack.above(0), 1);
    }
}
