//! How often something was seen lately, in little memory: a count-min sketch that halves itself (Einziger and others,
//! "`TinyLFU`: A Highly Efficient Cache Admission Policy", 2017).

const ROWS: usize = 4;
/// Counters stop here, so that a former favourite is forgotten after a few halvings.
const MAX: u8 = 15;

#[derive(Debug)]
pub(crate) struct Sketch {
    counters: Vec<u8>,
    mask: u64,
    /// Increments since the last halving.
    added: u64,
}

impl Sketch {
    /// `width` counters per row, rounded up to a power of two.
    pub(crate) fn new(width: u64) -> Self {
        let width = width.next_power_of_two().max(16);
        Self { counters: vec![0; ROWS * width as usize], mask: width - 1, added: 0 }
    }

    fn cells(&self, hash: u64) -> [usize; ROWS] {
        let step = (hash >> 32) | 1;
        std::array::from_fn(|row| {
            let spread = hash.wrapping_add(step.wrapping_mul(row as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            row * (self.mask as usize + 1) + (spread & self.mask) as usize
        })
    }

    pub(crate) fn count(&self, hash: u64) -> u8 {
        self.cells(hash).iter().map(|cell| self.counters[*cell]).min().unwrap_or(0)
    }

    /// One more; everything halves after `period` additions.
    pub(crate) fn add(&mut self, hash: u64, period: u64) {
        let cells = self.cells(hash);
        let low = self.count(hash);
        if low < MAX {
            for cell in cells {
                if self.counters[cell] == low {
                    self.counters[cell] += 1;
                }
            }
        }
        self.added += 1;
        if self.added >= period {
            self.counters.iter_mut().for_each(|counter| *counter /= 2);
            self.added /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stop_at_the_maximum_and_halve() {
        let mut sketch = Sketch::new(64);
        for _ in 0..20 {
            sketch.add(42, 1000);
        }
        assert_eq!((sketch.count(42), sketch.count(43)), (MAX, 0));
        sketch.add(43, 21);
        assert_eq!(sketch.count(42), MAX / 2);
    }
}
