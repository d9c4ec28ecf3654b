//! What was written of late: a watch is behind its writer, and a pass must not decide from what was there before.

use std::{collections::HashMap, time::Duration};

use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A watch that is further behind than this has lost the object: it is written again.
const BEHIND: Duration = Duration::from_secs(10);

/// The newest resource version written of each object.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<Key, (u64, Instant)>>);

/// Kind, namespace (empty for none) and name.
type Key = (String, String, String);

impl Written {
    pub fn remember<K: Resource<DynamicType = ()>>(&self, object: &K) {
        let Some(version) = version(object) else { return };
        let mut written = self.0.lock();
        written.retain(|_, (_, at)| at.elapsed() < BEHIND);
        written
            .insert(key::<K>(&object.namespace().unwrap_or_default(), &object.name_any()), (version, Instant::now()));
    }

    /// What was deleted is not waited for.
    pub fn forget<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) {
        self.0.lock().remove(&key::<K>(namespace, name));
    }

    /// Whether `seen`, what the watch has of the object, is older than what was written.
    pub fn is_ahead_of<K>(&self, namespace: &str, name: &str, seen: Option<&impl ResourceExt>) -> bool
    where
        K: Resource<DynamicType = ()>,
    {
        let mut written = self.0.lock();
        let key = key::<K>(namespace, name);
        let Some((newest, at)) = written.get(&key) else { return false };
        let is_ahead = at.elapsed() < BEHIND && seen.and_then(version).is_none_or(|seen| seen < *newest);
        if !is_ahead {
            written.remove(&key);
        }
        is_ahead
    }
}

fn key<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Key {
    (K::kind(&()).into_owned(), namespace.to_owned(), name.to_owned())
}

/// Resource versions of one kind are numbers that grow.
fn version(object: &impl ResourceExt) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn map(version: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            name: Some("a".into()),
            namespace: Some("ns".into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_waited_for_until_it_has_what_was_written_but_not_for_ever() {
        let written = Written::default();
        let is_ahead = |seen: Option<&ConfigMap>| written.is_ahead_of::<ConfigMap>("ns", "a", seen);
        assert!(!is_ahead(None));
        written.remember(&map("10"));
        assert!(is_ahead(None) && is_ahead(Some(&map("9"))));
        assert!(!written.is_ahead_of::<ConfigMap>("ns", "b", None::<&ConfigMap>));
        assert!(!is_ahead(Some(&map("10"))));
        assert!(!is_ahead(None), "it was seen, so that it is missing is news");
        written.remember(&map("11"));
        written.forget::<ConfigMap>("ns", "a");
        assert!(!is_ahead(None));
        written.remember(&map("12"));
        tokio::time::advance(BEHIND).await;
        assert!(!is_ahead(None));
    }
}
