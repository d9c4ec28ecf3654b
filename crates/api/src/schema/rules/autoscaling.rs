//! Rules of `spec.autoscaling`, and of the calendars and schedules that DataLoads have too.

use serde_json::Value;

use super::{keyed, quantity};
use crate::schema::place::{Rule, add_rules};

const PLACE: &str = "spec.autoscaling";

pub(super) fn autoscaling(schema: &mut Value) {
    keyed(schema, "spec.autoscaling.schedules", "name");
    keyed(schema, "spec.autoscaling.calendars", "name");
    keyed(schema, "spec.autoscaling.metrics", "type");
    keyed(schema, "status.autoscaling.metrics", "type");
    bounds(schema);
    calendars_known(schema);
    schedule(schema, "spec.autoscaling.schedules[].schedule");
    calendar(schema, "spec.autoscaling.calendars[]");
    metric(schema);
    retain(schema);
    add_rules(schema, "spec.drainBandwidth", [quantity("drainBandwidth", "1Mi", "1Ti", "200Mi")]);
}

fn bounds(schema: &mut Value) {
    let order = Rule::new(
        "self.minReplicas <= self.maxReplicas",
        "\"minReplicas %d is above maxReplicas %d; lower minReplicas or raise maxReplicas\"
         .format([self.minReplicas, self.maxReplicas])",
    )
    .blames(".minReplicas");
    let above = "self.schedules.filter(s, s.replicas > self.maxReplicas)[0]";
    let most = Rule::new(
        "!has(self.schedules) || self.schedules.all(s, s.replicas <= self.maxReplicas)",
        format!(
            "\"schedule '%s' has replicas %d, above maxReplicas %d; raise maxReplicas or lower replicas\"
             .format([{above}.name, {above}.replicas, self.maxReplicas])"
        ),
    )
    .blames(".schedules");
    let below = "self.schedules.filter(s, s.replicas < self.minReplicas)[0]";
    let least = Rule::new(
        "!has(self.schedules) || self.schedules.all(s, s.replicas >= self.minReplicas)",
        format!(
            "\"schedule '%s' has replicas %d, below minReplicas %d, which is 1 unless set; lower minReplicas or raise \
             replicas\".format([{below}.name, {below}.replicas, self.minReplicas])"
        ),
    )
    .blames(".schedules");
    add_rules(schema, PLACE, [order, most, least]);
}

/// Schedules name calendars that are there.
fn calendars_known(schema: &mut Value) {
    for field in ["skipCalendars", "onlyCalendars"] {
        let unknown = "!has(self.calendars) || !self.calendars.exists(k, k.name == c)";
        let rule = Rule::new(
            format!(
                "!has(self.schedules) || self.schedules.all(s, !has(s.{field}) || !s.{field}.exists(c, {unknown}))"
            ),
            format!(
                "\"{field} of schedule '%s' names a calendar that spec.autoscaling.calendars does not have; add it there, or \
                 correct the name\"
                 .format([self.schedules.filter(s, has(s.{field}) && s.{field}.exists(c, {unknown}))[0].name])"
            ),
        )
        .blames(".schedules");
        add_rules(schema, PLACE, [rule]);
    }
}

/// As far as a pattern can tell; the operator tells the rest in a condition.
pub(super) fn schedule(schema: &mut Value, path: &str) {
    let form = Rule::new(
        "self.matches('^ *[^ @]+( +[^ ]+){4,5} *$') || self.matches('^@[a-z]+( .+)?$')",
        "\"schedule '\" + self + \"' has neither five fields (minute first) nor six (second first), and is no '@' word; \
         write one such as '30 8 * * 1-5', '0 30 8 ? * MON-FRI' or '@daily'\"",
    );
    add_rules(schema, path, [form]);
}

pub(super) fn calendar(schema: &mut Value, path: &str) {
    let one = Rule::new(
        "has(self.dates) != has(self.configMap)",
        "\"calendar '\" + self.name + \"' needs either dates or configMap; write exactly one of them\"",
    );
    add_rules(schema, path, [one]);
    let date = Rule::new(
        "self.matches('^[0-9]{4}-[0-9]{2}-[0-9]{2}([.][.][0-9]{4}-[0-9]{2}-[0-9]{2})?$')",
        "\"dates has '\" + self + \"', which is no day; write 2026-10-01 or a range such as 2026-10-01..2026-10-08\"",
    );
    add_rules(schema, &format!("{path}.dates[]"), [date]);
}

/// What is to be found again must outlive its pod.
fn retain(schema: &mut Value) {
    let outlives = "has(l.path) || has(l.volumeClaimTemplate)
        || (has(l.volumeSource) && (has(l.volumeSource.hostPath) || has(l.volumeSource.persistentVolumeClaim)))";
    let rule = Rule::new(
        format!(
            "!has(self.autoscaling) || self.autoscaling.scaleIn != 'Retain' || self.tieredStore.levels.all(l, {outlives})"
        ),
        "\"scaleIn 'Retain' cannot keep a level that goes with its pod; give every level a path, a volumeClaimTemplate, or a \
         volumeSource with hostPath or persistentVolumeClaim, or write HandOver or Discard\"",
    )
    .blames(".autoscaling");
    add_rules(schema, "spec", [rule]);
}

fn metric(schema: &mut Value) {
    let percent = "quantity(string(self.target)).compareTo(quantity('100')) <= 0";
    let is_percent = "self.type in ['HitRatio', 'CachedPercent', 'Capacity']";
    let target = Rule::new(
        format!(
            "isQuantity(string(self.target)) && quantity(string(self.target)).compareTo(quantity('1')) >= 0
             && (!({is_percent}) || {percent})"
        ),
        format!(
            "\"target '%s' of metric '%s' is no quantity %s\".format([string(self.target), self.type,
             {is_percent} ? 'from 1 to 100, in percent; write one such as 90' : 'of at least 1; write one such as 800Mi'])"
        ),
    );
    add_rules(schema, "spec.autoscaling.metrics[]", [target]);
}
