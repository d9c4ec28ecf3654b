//! A simulated week in which nothing asks for another size: how often the size changes all the same.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use penstock_api::autoscaling::{Autoscaling, AutoscalingStatus};
use penstock_e2e::noise::number;
use penstock_plan::{
    autoscaling::{Measured, Past, Scene, ValidAutoscaling, decide},
    numbers::Rates,
};
use serde_json::json;

use super::super::figures::{Better, Case, Goal};

/// Between two passes.
const STEP: Duration = Duration::from_secs(15);
const STEPS: u64 = 7 * 24 * 240;
/// After this many the size has come to what the load asks for.
const SETTLED: u64 = 240;
const MIB: f64 = 1_048_576.0;
/// Of one worker.
const TARGET: f64 = 800.0 * MIB;
/// What readers take on average: four workers' worth, less the room that a noise of 15 % needs.
const LOAD: f64 = 3.3 * TARGET;

/// What is unsteady, though on average nothing changes.
#[derive(Clone, Copy, Debug)]
enum Unrest {
    Noise,
    Silence,
    SlowStart,
    Flapping,
    Restarts,
}

/// Size changes beyond what the load asks for, of all kinds of unrest together.
pub(super) fn case() -> Case {
    let kinds = [Unrest::Noise, Unrest::Silence, Unrest::SlowStart, Unrest::Flapping, Unrest::Restarts];
    let changes: usize = kinds.into_iter().map(changes).sum();
    let goal = Goal { at_most: Some(0.0), ..Goal::default() };
    Case::new("elastic-noise", "changes", Better::Lower, &[changes as f64], goal)
}

fn changes(unrest: Unrest) -> usize {
    let spec: Autoscaling = serde_json::from_value(json!({
        "minReplicas": 1, "maxReplicas": 20, "metrics": [{"type": "Throughput", "target": "800Mi"}]
    }))
    .unwrap_or_default();
    let spec = ValidAutoscaling::new(&spec, &BTreeMap::new());
    let created = Timestamp::UNIX_EPOCH;
    let (mut now, mut past, mut kept, mut current) = (created, Past::new(created), AutoscalingStatus::default(), None);
    let mut changes = 0;
    for step in 0..STEPS {
        let measured = measured(unrest, step);
        if matches!(unrest, Unrest::Restarts) && number(0, step).is_multiple_of(97) {
            past = Past::new(now);
        }
        let scene = Scene {
            spec: &spec,
            replicas: 4,
            changed_by: None,
            kept: &kept,
            current,
            measured: &measured,
            forecast: None,
            past: &past,
            users: 1,
            created,
            now,
        };
        let decision = decide(&scene);
        if step > SETTLED && current.is_some_and(|current| current != decision.replicas) {
            changes += 1;
        }
        past.note(now, decision.wish, current, decision.replicas);
        (current, kept) = (Some(decision.replicas), decision.status);
        now += STEP;
    }
    eprintln!("elastic-noise: {unrest:?} {changes} changes, {} workers at the end", current.unwrap_or_default());
    changes
}

fn measured(unrest: Unrest, step: u64) -> Measured {
    // From 0 to 1.
    let chance = |salt: u64| number(salt, step) as f64 / u64::MAX as f64;
    let wave = |salt| 1.0 + 0.15 * (2.0 * chance(salt) - 1.0);
    let (minute, five_minutes) = match unrest {
        Unrest::Noise | Unrest::Restarts => (Some(wave(1)), Some(wave(2))),
        // No worker answers for half an hour of each two.
        Unrest::Silence => {
            let told = (step % 480 < 360).then_some(1.0);
            (told, told)
        }
        Unrest::SlowStart => {
            let begun = (step as f64 / 120.0).min(1.0);
            (Some(begun), Some(begun))
        }
        // Readers that read twice as much, and nothing, every half a minute: over five minutes it is the same.
        Unrest::Flapping => (Some(if step % 4 < 2 { 1.9 } else { 0.1 }), Some(1.0)),
    };
    let rates = |part: Option<f64>| part.map(|part| Rates { hit: LOAD * part, ..Rates::default() });
    Measured {
        minute: rates(minute),
        five_minutes: rates(five_minutes),
        unused_for: Some(Duration::ZERO),
        worker_capacity: 1 << 40,
        ..Measured::default()
    }
}
