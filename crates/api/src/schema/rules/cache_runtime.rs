//! Rules of CacheRuntimes.

use serde_json::{Value, json};

use super::{absolute_path, autoscaling::autoscaling, bounded_map, conditions, keyed, object_name, quantity};
use crate::{
    names::{RESERVED_LABEL_PREFIXES, RESERVED_VOLUME_PREFIX},
    schema::{
        place::{Rule, add_rules, set},
        refine::embed,
    },
};

const LEVEL: &str = "spec.tieredStore.levels[]";

pub(in crate::schema) fn cache_runtime(schema: &mut Value) {
    object_name(schema);
    conditions(schema);
    embedded_types(schema);
    pod_metadata(schema);
    service_account(schema);
    volumes(schema);
    level_source(schema);
    level_numbers(schema);
    tiered_store(schema);
    readahead(schema);
    autoscaling(schema);
}

fn embedded_types(schema: &mut Value) {
    for field in [
        "affinity",
        "env",
        "imagePullSecrets",
        "resources",
        "securityContext",
        "tolerations",
        "volumeMounts",
        "volumes",
    ] {
        embed(schema, &format!("spec.worker.{field}"));
    }
    for source in ["csi", "emptyDir", "ephemeral", "hostPath", "persistentVolumeClaim"] {
        embed(schema, &format!("{LEVEL}.volumeSource.{source}"));
    }
    embed(schema, &format!("{LEVEL}.volumeClaimTemplate.spec"));
    embed(schema, "status.conditions");
    keyed(schema, "spec.worker.env", "name");
    keyed(schema, "spec.worker.volumes", "name");
    keyed(schema, "spec.worker.volumeMounts", "mountPath");
    for name in ["volumes[].name", "volumeMounts[].name", "env[].name"] {
        set(schema, &format!("spec.worker.{name}"), &json!({ "minLength": 1, "maxLength": 63 }));
    }
    set(schema, "spec.worker.env[].name", &json!({ "maxLength": 256 }));
    set(schema, "spec.worker.volumeMounts[].mountPath", &json!({ "minLength": 1, "maxLength": 1024 }));
}

fn pod_metadata(schema: &mut Value) {
    bounded_map(schema, "spec.worker.nodeSelector", 64, 63);
    for (place, field) in
        [("spec.worker.podMetadata", "podMetadata"), (&format!("{LEVEL}.volumeClaimTemplate.metadata"), "metadata")]
    {
        for (map, length) in [("labels", 63), ("annotations", 4096)] {
            let path = format!("{place}.{map}");
            bounded_map(schema, &path, 64, length);
            reserved_keys(schema, &path, &format!("{field}.{map}"));
        }
    }
}

/// Refuses labels or annotations that Penstock sets itself.
fn reserved_keys(schema: &mut Value, path: &str, field: &str) {
    let reserved: Vec<String> =
        RESERVED_LABEL_PREFIXES.iter().map(|prefix| format!("key.startsWith('{prefix}')")).collect();
    let reserved = reserved.join(" || ");
    let own = Rule::new(
        format!("!self.exists(key, {reserved})"),
        format!(
            "\"{field} has '%s', whose prefix Penstock keeps to itself; remove it or choose another prefix\"
             .format([self.filter(key, {reserved})[0]])"
        ),
    );
    add_rules(schema, path, [own]);
}

fn service_account(schema: &mut Value) {
    const PLACE: &str = "spec.worker.serviceAccount";
    let annotations = format!("{PLACE}.annotations");
    bounded_map(schema, &annotations, 64, 4096);
    reserved_keys(schema, &annotations, "serviceAccount.annotations");
    let whose = Rule::new(
        "!has(self.name) || !has(self.annotations) || self.annotations.size() == 0",
        "\"serviceAccount has annotations beside name '\" + self.name + \"', which is not Penstock's to annotate; annotate that \
         ServiceAccount itself, or remove name\"",
    )
    .blames(".annotations");
    add_rules(schema, PLACE, [whose]);
}

fn volumes(schema: &mut Value) {
    let reserved = Rule::new(
        format!("!self.startsWith('{RESERVED_VOLUME_PREFIX}')"),
        format!(
            "\"volume name '\" + self + \"' begins with '{RESERVED_VOLUME_PREFIX}', which Penstock keeps to itself; choose \
             another name\""
        ),
    );
    add_rules(schema, "spec.worker.volumes[].name", [reserved]);

    let missing = "!has(self.volumes) || !self.volumes.exists(volume, volume.name == mount.name)";
    let unknown = Rule::new(
        format!("!has(self.volumeMounts) || !self.volumeMounts.exists(mount, {missing})"),
        format!(
            "\"volumeMounts names volume '%s', which volumes does not have; add it to spec.worker.volumes\"
             .format([self.volumeMounts.filter(mount, {missing})[0].name])"
        ),
    )
    .blames(".volumeMounts");
    add_rules(schema, "spec.worker", [unknown]);

    let taken = Rule::new(
        "self.startsWith('/') && !self.matches('^/(etc|run|var/lib)/penstock(/|$)')",
        "\"mountPath '\" + self + \"' is not absolute, or is in /etc/penstock, /run/penstock or /var/lib/penstock, which \
         the worker uses; choose another, such as /data\"",
    );
    add_rules(schema, "spec.worker.volumeMounts[].mountPath", [taken]);
}

fn level_source(schema: &mut Value) {
    let one = Rule::new(
        "[has(self.path), has(self.volumeSource), has(self.volumeClaimTemplate)].filter(given, given).size() <= 1",
        "\"a level of mediumType '\" + self.mediumType + \"' has more than one of path, volumeSource and \
         volumeClaimTemplate; keep one, or none for an emptyDir\"",
    );
    let memory = Rule::new(
        "self.mediumType != 'MEM' || !has(self.volumeClaimTemplate)",
        "\"mediumType 'MEM' cannot have a volumeClaimTemplate, for claims are not memory; remove it, or set mediumType to \
         SSD or HDD\"",
    )
    .blames(".volumeClaimTemplate");
    add_rules(schema, LEVEL, [one, memory]);
    add_rules(schema, &format!("{LEVEL}.path"), [absolute_path("path", "/mnt/cache", false)]);

    let fields =
        "has(self.emptyDir), has(self.hostPath), has(self.ephemeral), has(self.csi), has(self.persistentVolumeClaim)";
    let source = Rule::new(
        format!("[{fields}].filter(given, given).size() == 1"),
        format!(
            "\"volumeSource has %d sources that Penstock knows; write exactly one of emptyDir, hostPath, ephemeral, csi and \
             persistentVolumeClaim\".format([[{fields}].filter(given, given).size()])"
        ),
    );
    add_rules(schema, &format!("{LEVEL}.volumeSource"), [source]);
}

fn level_numbers(schema: &mut Value) {
    for field in ["high", "low"] {
        let range = Rule::new(
            "self > 0.0 && self <= 1.0",
            format!("\"{field} '%s' is not a fraction above 0 and up to 1; write one such as 0.95\".format([self])"),
        );
        add_rules(schema, &format!("{LEVEL}.{field}"), [range]);
    }
    let order = Rule::new(
        "self.low < self.high",
        "\"low %s is not below high %s; lower low or raise high, as in low: 0.9, high: 0.95\"
         .format([self.low, self.high])",
    )
    .blames(".low");
    add_rules(schema, LEVEL, [order]);
    add_rules(schema, &format!("{LEVEL}.quota"), [quantity("quota", "16Mi", "1Pi", "40Gi")]);
}

fn readahead(schema: &mut Value) {
    add_rules(schema, "spec.client.readahead", [quantity("readahead", "0", "1Gi", "32Mi")]);
}

fn tiered_store(schema: &mut Value) {
    let same_path = Rule::new(
        "self.levels.all(l, !has(l.path) || self.levels.exists_one(k, has(k.path) && k.path == l.path))",
        "\"levels has path '%s' more than once; give each level a directory of its own\".format([self.levels
         .filter(l, has(l.path) && !self.levels.exists_one(k, has(k.path) && k.path == l.path))[0].path])",
    )
    .blames(".levels");
    // By position, for the claims' names have it. There are at most four levels.
    let claim = |owner: &str| {
        format!(
            "(i < {owner}.levels.size() && has({owner}.levels[i].volumeClaimTemplate) ? [{owner}.levels[i].volumeClaimTemplate] : [])"
        )
    };
    let claims = Rule::new(
        format!("[0, 1, 2, 3].all(i, {} == {})", claim("self"), claim("oldSelf")),
        "\"the volumeClaimTemplates of levels cannot change, come or go (there are %d now, and %d before), for the claims \
         of workers exist; delete the CacheRuntime and create it anew\"
         .format([self.levels.filter(l, has(l.volumeClaimTemplate)).size(),
         oldSelf.levels.filter(l, has(l.volumeClaimTemplate)).size()])",
    )
    .blames(".levels");
    add_rules(schema, "spec.tieredStore", [same_path, claims]);
}
