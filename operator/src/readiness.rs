//! Whether the operator can do its work, and if not, why.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{error, info};

/// What `/readyz` answers. Clones share the answer; it begins with no.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Starting,
    /// What is missing, one sentence each; ready when nothing is.
    Checked(Vec<String>),
    Stopping,
}

impl Readiness {
    /// Takes what was found missing at the last check, and logs what changed since the one before.
    pub fn report(&self, missing: Vec<String>) {
        let mut state = self.0.lock();
        let before = match &mut *state {
            State::Stopping => return,
            State::Starting => Vec::new(),
            State::Checked(before) => std::mem::take(before),
        };
        for sentence in missing.iter().filter(|sentence| !before.contains(sentence)) {
            error!("not ready: {sentence}");
        }
        if missing.is_empty() && !before.is_empty() {
            info!("ready again: nothing is missing any more");
        }
        *state = State::Checked(missing);
    }

    /// From now on the answer is no.
    pub fn stop(&self) {
        *self.0.lock() = State::Stopping;
    }

    /// `Ok` when ready; else why not, one sentence each.
    pub fn answer(&self) -> Result<(), Vec<String>> {
        match &*self.0.lock() {
            State::Starting => Err(vec!["starting: rights and CustomResourceDefinitions are not checked yet".into()]),
            State::Checked(missing) if missing.is_empty() => Ok(()),
            State::Checked(missing) => Err(missing.clone()),
            State::Stopping => Err(vec!["stopping".into()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_the_last_check_until_the_process_stops() {
        let readiness = Readiness::default();
        assert!(readiness.answer().unwrap_err()[0].starts_with("starting"));
        readiness.report(vec!["no CRD".into()]);
        assert_eq!(readiness.answer(), Err(vec!["no CRD".into()]));
        readiness.report(Vec::new());
        assert_eq!(readiness.answer(), Ok(()));
        readiness.stop();
        readiness.report(Vec::new());
        assert_eq!(readiness.answer(), Err(vec!["stopping".into()]));
    }
}
