//! Rules of Datasets.

use serde_json::Value;

use super::{absolute_path, bounded_map, conditions, keyed, object_name};
use crate::{
    SCHEMES,
    schema::{
        place::{Rule, add_rules},
        refine::embed,
    },
};

pub(in crate::schema) fn dataset(schema: &mut Value) {
    object_name(schema);
    conditions(schema);
    keyed(schema, "status.mounts", "path");
    for embedded in ["spec.nodeAffinity.required", "spec.tolerations", "status.conditions"] {
        embed(schema, embedded);
    }
    options(schema);
    spec(schema);
    mount(schema);
    mount_point(schema);
    consistency(schema);
}

fn options(schema: &mut Value) {
    for (place, plain, secret) in
        [("spec", "sharedOptions", "sharedEncryptOptions"), ("spec.mounts[]", "options", "encryptOptions")]
    {
        bounded_map(schema, &format!("{place}.{plain}"), 64, 4096);
        keyed(schema, &format!("{place}.{secret}"), "name");
        let both = format!("self.{secret}.filter(option, option.name in self.{plain})");
        let twice = Rule::new(
            format!("!has(self.{plain}) || !has(self.{secret}) || self.{secret}.all(option, !(option.name in self.{plain}))"),
            format!(
                "\"option '%s' is in both {plain} and {secret}; remove it from one of them, from {plain} if it is a secret\"
                 .format([{both}[0].name])"
            ),
        );
        add_rules(schema, place, [twice]);
    }
}

/// Where a mount `m` appears, as `Mount::effective_path` has it.
const PATH_OF_M: &str = "(has(m.path) ? m.path : has(m.name) ? '/' + m.name : '/')";
const PATH_OF_N: &str = "(has(n.path) ? n.path : has(n.name) ? '/' + n.name : '/')";

fn spec(schema: &mut Value) {
    let unnamed = Rule::new(
        "self.mounts.size() < 2 || self.mounts.all(m, has(m.path) || has(m.name))",
        "\"spec.mounts has %d mounts, and that of '%s' has neither name nor path; give it a name such as 'prices' or a path \
         such as '/prices'\"
         .format([self.mounts.size(), self.mounts.filter(m, !has(m.path) && !has(m.name))[0].mountPoint])",
    )
    .blames(".mounts");
    let same_path = Rule::new(
        format!("self.mounts.all(m, self.mounts.exists_one(n, {PATH_OF_N} == {PATH_OF_M}))"),
        format!(
            "\"spec.mounts has more than one mount at '%s' (its path, or else its name); give each a path of its own\"
             .format([self.mounts.filter(m, !self.mounts.exists_one(n, {PATH_OF_N} == {PATH_OF_M}))
             .map(m, has(m.path) ? m.path : has(m.name) ? m.name : '/')[0]])"
        ),
    )
    .blames(".mounts");
    let same_name = Rule::new(
        "self.mounts.all(m, !has(m.name) || self.mounts.exists_one(n, has(n.name) && n.name == m.name))",
        "\"spec.mounts has more than one mount of name '%s'; give each a name of its own\".format([self.mounts
         .filter(m, has(m.name) && !self.mounts.exists_one(n, has(n.name) && n.name == m.name))[0].name])",
    )
    .blames(".mounts");
    let runtime = Rule::new(
        "(has(self.runtime) ? self.runtime.name : '') == (has(oldSelf.runtime) ? oldSelf.runtime.name : '')",
        "\"spec.runtime.name cannot change from '\" + (has(oldSelf.runtime) ? oldSelf.runtime.name : '') + \"' to '\"
         + (has(self.runtime) ? self.runtime.name : '') + \"'; delete the Dataset and create it anew\"",
    )
    .blames(".runtime");
    add_rules(schema, "spec", [unnamed, same_path, same_name, runtime]);
}

fn mount(schema: &mut Value) {
    add_rules(schema, "spec.mounts[].path", [absolute_path("path", "/prices", true)]);
    let name = Rule::new(
        "self.matches('^[A-Za-z0-9_][A-Za-z0-9._-]*$')",
        "\"name '\" + self + \"' is not a plain name; use letters, digits, '.', '_' and '-', and begin with a letter or \
         digit, as in 'prices'\"",
    );
    add_rules(schema, "spec.mounts[].name", [name]);
}

fn mount_point(schema: &mut Value) {
    let known: Vec<String> = SCHEMES.iter().map(|scheme| format!("self.startsWith('{}')", scheme.prefix)).collect();
    let examples: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.example).collect();
    let known_scheme = Rule::new(
        known.join(" || "),
        format!("\"mountPoint '\" + self + \"' has a scheme that is not supported; write {}\"", examples.join(" or ")),
    );
    let bucket = Rule::new(
        "!self.startsWith('s3://') || self.matches('^s3://[A-Za-z0-9][A-Za-z0-9._-]*(/[^?#]*)?$')",
        "\"mountPoint '\" + self + \"' names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX, without user, port, '?' \
         and '#', and put the server's address into options.endpoint\"",
    );
    let local = Rule::new(
        "!self.startsWith('local://') || (self.startsWith('local:///') && !self.matches('/[.][.]?(/|$)'))",
        "\"mountPoint '\" + self + \"' is not an absolute path without '.' and '..'; write local:/// and the path, as in \
         local:///data/prices\"",
    );
    add_rules(schema, "spec.mounts[].mountPoint", [known_scheme, bucket, local]);
}

fn consistency(schema: &mut Value) {
    let idle = Rule::new(
        "self.mode != 'Static' || !has(self.interval)",
        "\"consistency.interval '\" + self.interval + \"' has no meaning in mode Static; remove it, or set mode: Revalidate\"",
    )
    .blames(".interval");
    add_rules(schema, "spec.consistency", [idle]);

    // The digits are bounded so that duration() cannot overflow.
    let form = "self.matches('^([0-9]{1,6}([.][0-9]{1,3})?(ms|s|m|h)){1,4}$')";
    let duration = Rule::new(
        format!("{form} && duration(self) >= duration('1s')"),
        "\"interval '\" + self + \"' is not a duration of at least 1s; write one such as 30s, 5m or 1h30m\"",
    );
    add_rules(schema, "spec.consistency.interval", [duration]);
}
