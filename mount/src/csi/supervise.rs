//! Takeover: when a serving process dies, another one goes on with its session, and readers notice a pause only.

use std::{path::Path, sync::Arc};

use super::{
    daemon::{Daemon, End},
    volumes::{Staged, Volumes},
};

impl Volumes {
    /// Replaces the process of a mount whenever it dies, until the mount is torn down or no process would help.
    pub(super) async fn supervise(self: Arc<Self>, mut staged: Arc<Staged>) {
        let staging = staged.record.staging_path.clone();
        let Some(connection) = self.connections.get(&staging).map(|connection| Arc::downgrade(&connection)) else {
            return;
        };
        while let Some(daemon) = &staged.daemon
            && daemon.ended().await == End::Died
        {
            let _guard = self.locks.lock(&staged.record.volume_id).await;
            // Else it was torn down, and perhaps mounted anew, with a supervisor of its own.
            if !self.connections.get(&staging).is_some_and(|kept| std::ptr::eq(Arc::as_ptr(&kept), connection.as_ptr()))
            {
                return;
            }
            let known = || self.staged.lock().get(&staging).cloned();
            if !known().is_some_and(|known| known.is_served()) && !self.revive(&staging).await {
                break;
            }
            match known() {
                Some(newer) => staged = newer,
                None => break,
            }
        }
        self.connections.release(&staging, &connection);
    }

    /// Has another process take over the session of the dead one at `staging`. The volume's lock is held. False when no
    /// session is known, or process after process has died of it.
    pub(super) async fn revive(&self, staging: &Path) -> bool {
        let known = self.staged.lock().get(staging).cloned();
        let (Some(staged), Some(connection)) = (known, self.connections.get(staging)) else { return false };
        let dataset = &connection.spec.dataset;
        while connection.may_be_taken_over() {
            match Daemon::start(&self.program, &connection).await {
                Ok(daemon) => {
                    tracing::warn!(dataset, pid = daemon.id.pid, "another process has taken the mount over");
                    self.metrics.takeovers.inc();
                    self.replace(staging, &staged, daemon);
                    return true;
                }
                Err(error) => tracing::error!(dataset, %error, "no process could take the mount over"),
            }
        }
        tracing::error!(dataset, staging = %staging.display(), "the mount is dead until the volume is published again");
        self.tell_lost(staging, dataset, "each process that served it died");
        false
    }

    fn replace(&self, staging: &Path, staged: &Staged, daemon: Daemon) {
        let mut record = staged.record.clone();
        record.process = Some(daemon.id);
        if let Err(error) = self.state.save(&record) {
            tracing::warn!(%error, "a restarted plugin will not know who serves a mount");
        }
        let next = Staged { record, spec: staged.spec.clone(), daemon: Some(daemon) };
        self.staged.lock().insert(staging.to_owned(), Arc::new(next));
    }
}
