//! `penstock explain`: why something is as it is, in words and numbers.

use std::fmt::Write;

use clap::Subcommand;
use kube::{Api, ResourceExt};
use penstock_api::{CacheRuntime, autoscaling::CurveStatus, human_bytes};

use crate::cluster::{self, NoCluster};

#[derive(Subcommand)]
pub enum Explain {
    /// Why a CacheRuntime has as many workers as it has, and what comes next.
    Scaling {
        /// Name of the CacheRuntime.
        name: String,
        /// Its namespace [default: the kubeconfig's].
        #[arg(short, long)]
        namespace: Option<String>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error(transparent)]
    Cluster(#[from] NoCluster),
    #[error("no CacheRuntime '{name}' in namespace '{namespace}'; `kubectl get cacheruntimes -A` lists all")]
    Absent { namespace: String, name: String },
    #[error("cannot read CacheRuntime '{name}': {source}")]
    Read { name: String, source: kube::Error },
}

impl Explain {
    pub async fn run(self) -> Result<(), ExplainError> {
        let Self::Scaling { name, namespace } = self;
        let client = cluster::client().await?;
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        let found = Api::<CacheRuntime>::namespaced(client, &namespace).get_opt(&name).await;
        let found = found.map_err(|source| ExplainError::Read { name: name.clone(), source })?;
        let runtime = found.ok_or(ExplainError::Absent { namespace, name })?;
        print!("{}", scaling(&runtime));
        Ok(())
    }
}

/// The status in sentences, one matter on a line.
fn scaling(runtime: &CacheRuntime) -> String {
    let (status, mut text) = (runtime.status.clone().unwrap_or_default(), String::new());
    let mut line = |title: &str, rest: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{title:<11} {rest}");
    };
    let place = format!("{}/{}", runtime.namespace().unwrap_or_default(), runtime.name_any());
    line("Runtime", place);
    let (wanted, ready) = (status.desired_replicas, status.ready_replicas);
    line("Workers", format!("{wanted} wanted, {ready} serve"));
    match &status.autoscaling {
        None => line("Why", format!("spec.replicas is {wanted}, and there is no spec.autoscaling")),
        Some(known) => {
            let reason = known.reason.map(|reason| reason.to_string()).unwrap_or_default();
            line("Why", format!("{reason}: {}", known.message.clone().unwrap_or_default()));
            if let Some(spec) = &runtime.spec.autoscaling {
                line("Bounds", format!("{} to {}", spec.min_replicas, spec.max_replicas));
            }
            if let Some(order) = &known.order {
                let by = order.by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
                line("Order", format!("{} workers, {}{by}", order.replicas, order.time.0));
            }
            if let Some(due) = &known.schedule {
                line("Schedule", format!("{}, {} workers since {}", due.name, due.replicas, due.time.0));
            }
            for next in &known.next {
                line("Next", format!("{} {}, {} workers", next.time.0, next.name, next.replicas));
            }
            for metric in &known.metrics {
                let wish = metric.wish.map_or("nothing".to_owned(), |wish| format!("{wish} workers"));
                let message = metric.message.clone().unwrap_or_default();
                line("Metric", format!("{} asks for {wish}: {message}", metric.kind));
            }
            if let Some(since) = &known.idle_since {
                line("Idle", format!("nobody has used the Dataset since {}", since.0));
            }
            if let Some(last) = &known.last_scale_time {
                line("Changed", format!("last at {}", last.0));
            }
        }
    }
    if let Some(curve) = status.autoscaling.as_ref().and_then(|known| known.curve.as_ref()) {
        let percent =
            |percent: Option<u32>| percent.map_or("not known yet".to_owned(), |percent| format!("{percent} %"));
        let [seen, predicted] = [curve.seen_percent, curve.predicted_percent].map(percent);
        line("Hit ratio", format!("{seen} at this size, predicted {predicted}"));
    }
    if let Some(over) = &status.hand_over {
        let [moved, left, dropped] = [over.moved_bytes, over.left_bytes, over.dropped_bytes].map(human_bytes);
        line("Hand-over", format!("{moved} moved, {left} left, {dropped} dropped"));
    }
    if let Some(curve) = status.autoscaling.as_ref().and_then(|known| known.curve.as_ref()) {
        text.push_str(&plot(curve, wanted));
    }
    text
}

/// Characters of a bar of 100 %.
const BAR: usize = 40;

/// The curve as bars, a line for each size.
fn plot(curve: &CurveStatus, wanted: u32) -> String {
    let mut text = "\nWorkers  Predicted hit ratio\n".to_owned();
    for point in &curve.points {
        let bar = "█".repeat(point.hit_percent as usize * BAR / 100);
        let mark = if point.replicas == wanted { '>' } else { ' ' };
        let missed = u64::from(100_u32.saturating_sub(point.hit_percent));
        let ufs = curve.bytes_per_second.map(|rate| format!("  {}/s from the UFS", human_bytes(rate * missed / 100)));
        let (replicas, percent) = (point.replicas, point.hit_percent);
        // Writing to a String does not fail.
        let _ = writeln!(text, "{mark} {replicas:>5}  {percent:>3} % {bar:<BAR$}{}", ufs.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn runtime(spec: &Value, status: &Value) -> CacheRuntime {
        let mut object = json!({
            "metadata": {"name": "bars", "namespace": "quant"},
            "spec": {"tieredStore": {"levels": [{"mediumType": "MEM", "quota": "1Gi"}]}}, "status": status
        });
        object["spec"]["autoscaling"] = spec.clone();
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn what_moves_the_size_is_told_and_what_comes_next() {
        let spec = json!({"minReplicas": 2, "maxReplicas": 20});
        let status = json!({
            "desiredReplicas": 12, "readyReplicas": 11,
            "autoscaling": {
                "reason": "Scheduled", "message": "schedule 'open' asks for 12 workers",
                "schedule": {"name": "open", "time": "2026-11-27T01:30:00Z", "replicas": 12},
                "next": [{"name": "close", "time": "2026-11-27T07:00:00Z", "replicas": 3}],
                "metrics": [{"type": "Throughput", "wish": 4, "message": "2 GiB/s at 800Mi for a worker"}]
            },
            "handOver": {"movedBytes": 1024, "leftBytes": 0, "droppedBytes": 0}
        });
        let text = scaling(&runtime(&spec, &status));
        let expected = "Runtime     quant/bars\n\
                        Workers     12 wanted, 11 serve\n\
                        Why         Scheduled: schedule 'open' asks for 12 workers\n\
                        Bounds      2 to 20\n\
                        Schedule    open, 12 workers since 2026-11-27T01:30:00Z\n\
                        Next        2026-11-27T07:00:00Z close, 3 workers\n\
                        Metric      Throughput asks for 4 workers: 2 GiB/s at 800Mi for a worker\n\
                        Hand-over   1.00KiB moved, 0B left, 0B dropped\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_curve_is_drawn_with_what_is_left_for_the_ufs() {
        let spec = json!({"maxReplicas": 4});
        let status = json!({"desiredReplicas": 4, "readyReplicas": 4, "autoscaling": {"curve": {
            "seenPercent": 91, "predictedPercent": 92, "bytesPerSecond": 1_073_741_824,
            "points": [{"replicas": 2, "hitPercent": 50}, {"replicas": 4, "hitPercent": 95}]
        }}});
        let text = scaling(&runtime(&spec, &status));
        let expected = format!(
            "Hit ratio   91 % at this size, predicted 92 %\n\n\
             Workers  Predicted hit ratio\n\
             \u{20}     2   50 % {:<40}  512MiB/s from the UFS\n\
             >     4   95 % {:<40}  51.2MiB/s from the UFS\n",
            "█".repeat(20),
            "█".repeat(38)
        );
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn without_autoscaling_the_specification_is_the_reason() {
        let text = scaling(&runtime(&Value::Null, &json!({"desiredReplicas": 3, "readyReplicas": 3})));
        assert!(text.contains("Why         spec.replicas is 3, and there is no spec.autoscaling"), "{text}");
    }
}
