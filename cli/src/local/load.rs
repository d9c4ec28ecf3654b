//! A DataLoad for the workers of this machine, decided as the operator does it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use penstock_api::{DataLoad, DataLoadStatus, LoadPolicy};
use penstock_plan::load::{Scene, decide};

use super::fleet::{Fleet, FleetError};
use crate::{load::has_ended, manifest::Order};

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(500);
/// Before it a rate says nothing.
const MEASURED: Duration = Duration::from_secs(2);

/// What a cluster does and this machine does not.
#[derive(Debug, thiserror::Error)]
pub enum LocalLoadError {
    #[error("spec.policy is {0}, which needs a cluster: local mode loads once; leave spec.policy out")]
    Policy(LoadPolicy),
    #[error(
        "spec.runAfter names DataLoad '{0}', and local mode keeps none: run that one before, and leave runAfter out"
    )]
    RunAfter(String),
    #[error("spec.dataset is '{wanted}', but Dataset '{there}' is up: correct spec.dataset")]
    OtherDataset { wanted: String, there: String },
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl Fleet {
    /// Loads until that is complete or has failed; `show` hears how far it is. The last status.
    pub async fn load(
        &self,
        order: &Order,
        mut show: impl FnMut(&DataLoadStatus),
    ) -> Result<DataLoadStatus, LocalLoadError> {
        let begun = Instant::now();
        let mut load = self.accept(&order.load)?;
        loop {
            let workers = self.seen().await;
            let done = load.status.as_ref().and_then(|status| status.done_bytes);
            let rate = |done: u64| (done as f64 / begun.elapsed().as_secs_f64()) as u64;
            let decision = decide(&Scene {
                load: &load,
                wanted: workers.len() as u32,
                epoch: self.epoch(),
                workers: &workers,
                phase_of: &|_| None,
                texts: &order.texts,
                rate: done.filter(|_| begun.elapsed() >= MEASURED).map(rate),
                now: Timestamp::now(),
            });
            show(&decision.status);
            let orders = decision.order.filter(|_| !has_ended(&decision.status));
            self.tell_loads(orders.as_slice()).await?;
            if has_ended(&decision.status) || orders.is_none() {
                return Ok(decision.status);
            }
            load.status = Some(decision.status);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// With an id of its own: workers know earlier runs by theirs.
    fn accept(&self, load: &DataLoad) -> Result<DataLoad, LocalLoadError> {
        let spec = &load.spec;
        if spec.policy != LoadPolicy::Once {
            return Err(LocalLoadError::Policy(spec.policy));
        }
        if let Some(before) = &spec.run_after {
            return Err(LocalLoadError::RunAfter(before.name.clone()));
        }
        let there = self.dataset();
        if there.rsplit('/').next() != Some(spec.dataset.as_str()) {
            return Err(LocalLoadError::OtherDataset { wanted: spec.dataset.clone(), there: there.to_owned() });
        }
        let mut load = DataLoad { status: None, ..load.clone() };
        load.metadata.uid = Some(Timestamp::now().to_string());
        Ok(load)
    }
}
