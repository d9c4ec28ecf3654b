//! Reuse distances in bytes, in steps that are the same part of every distance.

/// Steps from one power of two to the next.
const STEPS: f64 = 32.0;
/// What is nearer than this is hit by any cache, bytes.
const LEAST: f64 = (64 << 10) as f64;
/// The number of steps: up to 2^50 bytes.
pub(crate) const COUNT: usize = 34 * STEPS as usize;

/// The step that holds `distance`.
pub(crate) fn step(distance: f64) -> usize {
    (((distance.max(LEAST) / LEAST).log2() * STEPS) as usize).min(COUNT - 1)
}

/// The part of what lies in `step` that is at most `distance`, 0 to 1.
pub(crate) fn part_below(at: usize, distance: f64) -> f64 {
    let position = (distance.max(1.0) / LEAST).log2() * STEPS - at as f64;
    position.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_hold_what_is_put_in() {
        assert_eq!((step(0.0), step(LEAST), step(2.0 * LEAST), step(f64::MAX)), (0, 0, 32, COUNT - 1));
        let distance = 3.3 * LEAST;
        let at = step(distance);
        assert_eq!((part_below(at - 1, distance), part_below(at + 1, distance)), (1.0, 0.0));
        assert!((0.0..1.0).contains(&part_below(at, distance)));
    }
}
