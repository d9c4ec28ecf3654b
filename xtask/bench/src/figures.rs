//! What a suite measured, beside its limit, its peers and its goal.

use std::collections::BTreeMap;

use serde::Serialize;

/// One figure in `target/bench/SUITE.json`.
#[derive(Debug, Serialize)]
pub(super) struct Case {
    #[serde(rename = "case")]
    name: String,
    unit: &'static str,
    /// The median of all runs.
    ours: f64,
    /// The least and the most of any run.
    spread: [f64; 2],
    /// What the machine allows, measured in the same run; null where that means nothing.
    limit: Option<f64>,
    /// The same, done by others in the same run.
    peers: BTreeMap<&'static str, f64>,
    better: Better,
    /// What we set out to reach.
    #[serde(skip)]
    goal: Goal,
}

impl Case {
    /// `ours` has a value for each run.
    pub(super) fn new(name: impl Into<String>, unit: &'static str, better: Better, ours: &[f64], goal: Goal) -> Self {
        let spread = ours
            .iter()
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[least, most], value| [least.min(*value), most.max(*value)]);
        let (name, ours) = (name.into(), median(ours.to_vec()));
        Self { name, unit, ours, spread, limit: None, peers: BTreeMap::new(), better, goal }
    }

    /// With what the machine allowed in each run.
    pub(super) fn limit(mut self, values: &[f64]) -> Self {
        self.limit = Some(median(values.to_vec()));
        self
    }

    /// With what another program did in each run.
    pub(super) fn peer(mut self, name: &'static str, values: &[f64]) -> Self {
        self.peers.insert(name, median(values.to_vec()));
        self
    }
}

/// All that is given must hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Goal {
    pub(super) at_least: Option<f64>,
    pub(super) at_most: Option<f64>,
    /// At least this part of the limit.
    pub(super) of_limit: Option<f64>,
    /// At most so many times the limit.
    pub(super) times_limit: Option<f64>,
    /// At least so many times the best peer, where more is better.
    pub(super) of_best_peer: Option<f64>,
    /// At most so many times the best peer, where less is better.
    pub(super) times_best_peer: Option<f64>,
}

impl Goal {
    fn is_met(&self, case: &Case) -> bool {
        let (ours, peers) = (case.ours, case.peers.values().copied());
        let (least, most) = (peers.clone().min_by(f64::total_cmp), peers.max_by(f64::total_cmp));
        let at_least = |value: Option<f64>, part: Option<f64>| value.zip(part).is_none_or(|(v, p)| ours >= v * p);
        let at_most = |value: Option<f64>, times: Option<f64>| value.zip(times).is_none_or(|(v, t)| ours <= v * t);
        at_least(self.at_least, Some(1.0))
            && at_most(self.at_most, Some(1.0))
            && at_least(case.limit, self.of_limit)
            && at_most(case.limit, self.times_limit)
            && at_least(most, self.of_best_peer)
            && at_most(least, self.times_best_peer)
    }

    fn text(&self) -> String {
        let least = self.at_least.map(|least| format!(">= {least}"));
        let at_most = self.at_most.map(|most| format!("<= {most:.4}"));
        let of_limit = self.of_limit.map(|part| format!(">= {part} limit"));
        let times_limit = self.times_limit.map(|times| format!("<= {times} limit"));
        let of_best_peer = self.of_best_peer.map(|times| format!(">= {times} best peer"));
        let times_best_peer = self.times_best_peer.map(|times| format!("<= {times} best peer"));
        let all = [least, at_most, of_limit, times_limit, of_best_peer, times_best_peer];
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Better {
    Lower,
    Higher,
}

pub(super) fn print(cases: &[Case]) {
    let ratio = |other: f64, ours: f64| format!("{other:.3} (x{:.2})", ours / other);
    println!("{:<18} {:>8} {:>10}  {:<28} {:<20} PEERS", "CASE", "UNIT", "OURS", "GOAL", "LIMIT");
    for case in cases {
        let limit = case.limit.map_or_else(|| "-".to_owned(), |limit| ratio(limit, case.ours));
        let peers: Vec<_> =
            case.peers.iter().map(|(name, value)| format!("{name} {}", ratio(*value, case.ours))).collect();
        let goal = format!("{}{}", case.goal.text(), if case.goal.is_met(case) { "" } else { " MISSED" });
        let (name, unit, ours) = (&case.name, case.unit, case.ours);
        println!("{name:<18} {unit:>8} {ours:>10.3}  {goal:<28} {limit:<20} {}", peers.join(", "));
    }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_the_median_and_the_spread_of_its_runs() {
        let case = Case::new("a", "s", Better::Lower, &[3.0, 1.0, 2.0], Goal::default()).limit(&[5.0, 4.0, 6.0]);
        assert_eq!((case.ours, case.spread, case.limit), (2.0, [1.0, 3.0], Some(5.0)));
    }

    #[test]
    fn every_part_of_a_goal_counts() {
        let case = |ours: f64, goal| {
            Case::new("a", "s", Better::Lower, &[ours], goal).limit(&[10.0]).peer("one", &[4.0]).peer("two", &[2.0])
        };
        let met = |ours, goal| goal_of(&case(ours, goal));
        assert!(met(9.0, Goal { of_limit: Some(0.9), ..Goal::default() }));
        assert!(!met(8.9, Goal { of_limit: Some(0.9), of_best_peer: Some(1.0), ..Goal::default() }));
        assert!(!met(21.0, Goal { times_limit: Some(2.0), ..Goal::default() }));
        assert!(met(4.0, Goal { of_best_peer: Some(1.0), ..Goal::default() }));
        assert!(!met(3.0, Goal { of_best_peer: Some(1.0), ..Goal::default() }));
        assert!(met(2.0, Goal { times_best_peer: Some(1.0), ..Goal::default() }));
        assert!(!met(3.0, Goal { times_best_peer: Some(1.0), ..Goal::default() }));
        assert!(!met(0.9, Goal { at_least: Some(1.0), ..Goal::default() }));
        assert!(!met(1.1, Goal { at_most: Some(1.0), ..Goal::default() }));
    }

    fn goal_of(case: &Case) -> bool {
        case.goal.is_met(case)
    }
}
