//! Rules of DataLoads.

use serde_json::Value;

use super::{absolute_path, autoscaling, conditions, quantity};
use crate::schema::{
    place::{Rule, add_rules},
    refine::embed,
};

pub(in crate::schema) fn data_load(schema: &mut Value) {
    conditions(schema);
    embed(schema, "status.conditions");
    dataset(schema);
    when(schema);
    targets(schema);
    autoscaling::schedule(schema, "spec.schedule");
    for calendars in ["spec.skipCalendars", "spec.onlyCalendars"] {
        super::keyed(schema, calendars, "name");
        autoscaling::calendar(schema, &format!("{calendars}[]"));
    }
    add_rules(schema, "spec.bandwidth", [quantity("bandwidth", "1Mi", "1Ti", "500Mi")]);
}

fn dataset(schema: &mut Value) {
    let fixed = Rule::new(
        "self.dataset == oldSelf.dataset",
        "\"spec.dataset cannot change from '\" + oldSelf.dataset + \"' to '\" + self.dataset + \"'; delete the DataLoad and \
         create it anew\"",
    )
    .blames(".dataset");
    add_rules(schema, "spec", [fixed]);
    let own = Rule::new(
        "!has(self.spec.runAfter) || self.spec.runAfter.name != self.metadata.name",
        "\"spec.runAfter.name '\" + self.metadata.name + \"' is this DataLoad itself; name another one\"",
    );
    add_rules(schema, "", [own]);
}

fn when(schema: &mut Value) {
    let idle = Rule::new(
        "self.policy == 'Cron' || !has(self.schedule)",
        "\"schedule '\" + self.schedule + \"' has no meaning with policy \" + self.policy + \"; set policy: Cron, or remove \
         schedule\"",
    )
    .blames(".schedule");
    let missing = Rule::new(
        "self.policy != 'Cron' || has(self.schedule)",
        "\"policy 'Cron' needs a schedule; write one such as '30 8 * * 1-5'\"",
    )
    .blames(".schedule");
    let ttl = Rule::new(
        "!has(self.ttlSecondsAfterFinished) || self.policy == 'Once'",
        "\"ttlSecondsAfterFinished %d has no meaning with policy %s, which never ends; remove it, or set policy: Once\"
         .format([self.ttlSecondsAfterFinished, self.policy])",
    )
    .blames(".ttlSecondsAfterFinished");
    add_rules(schema, "spec", [idle, missing, ttl]);
}

fn targets(schema: &mut Value) {
    let one = Rule::new(
        "[has(self.path), has(self.glob), has(self.configMap)].filter(given, given).size() == 1",
        "\"a target has %d of path, glob and configMap; write exactly one\"
         .format([[has(self.path), has(self.glob), has(self.configMap)].filter(given, given).size()])",
    );
    add_rules(schema, "spec.targets[]", [one]);
    add_rules(schema, "spec.targets[].path", [absolute_path("path", "/prices/2026", true)]);
    let glob = Rule::new(
        "self.startsWith('/') && !self.matches('/[.][.]?(/|$)')",
        "\"glob '\" + self + \"' is not absolute, or has '.' or '..'; write one such as /prices/2026-*/**\"",
    );
    add_rules(schema, "spec.targets[].glob", [glob]);
}
