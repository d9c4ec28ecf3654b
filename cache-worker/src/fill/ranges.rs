//! Arithmetic on byte ranges.

use std::ops::Range;

use penstock_model::PAGE;

pub(super) fn pages_of(range: &Range<u64>, size: u64) -> Range<u64> {
    range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE).min(size)
}

pub(super) fn overlap(a: &Range<u64>, b: &Range<u64>) -> Option<Range<u64>> {
    let common = a.start.max(b.start)..a.end.min(b.end);
    (!common.is_empty()).then_some(common)
}

/// What is left of `ranges` without `taken`.
pub(super) fn subtract<'a>(ranges: Vec<Range<u64>>, taken: impl Iterator<Item = &'a Range<u64>>) -> Vec<Range<u64>> {
    taken.fold(ranges, |ranges, taken| {
        let around = |range: Range<u64>| {
            let before = range.start..range.end.min(taken.start).max(range.start);
            let after = range.start.max(taken.end).min(range.end)..range.end;
            [before, after]
        };
        ranges
            .into_iter()
            .flat_map(|range| if overlap(&range, taken).is_some() { around(range) } else { [range, 0..0] })
            .filter(|range| !range.is_empty())
            .collect()
    })
}

/// Joins neighbours; `ranges` are in order.
pub(super) fn join(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = Range<u64>> {
        (0u64..60, 1u64..20).prop_map(|(start, len)| start..start + len)
    }

    proptest! {
        /// The model: sets of numbers.
        #[test]
        fn subtraction_is_that_of_sets(from in range(), taken in prop::collection::vec(range(), 0..5)) {
            let mut expected: BTreeSet<u64> = from.clone().collect();
            for n in taken.iter().cloned().flatten() {
                expected.remove(&n);
            }
            let left = subtract(vec![from], taken.iter());
            prop_assert_eq!(left.iter().cloned().flatten().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
