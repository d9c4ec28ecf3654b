//! What running workers are told: their configuration, the member list, and who is to hand over.

use penstock_plan::scaling::Scaling;

use super::{
    super::{
        observed::{Seen, Worker},
        plan::Serve,
    },
    Error,
    update::update,
};
use crate::{context::Context, worker_api::Fleet};

/// `dataset` is `NS/NAME`.
pub(in crate::controller) async fn tell(
    dataset: String,
    serve: &Serve,
    seen: &Seen,
    ctx: &Context,
) -> Result<(), Error> {
    update(serve, seen, ctx).await?;
    let fleet = Fleet { dataset, peer_key: serve.keys.peer.clone() };
    let (fleet, scaling) = (&fleet, &serve.scaling);
    let told = seen.workers.iter().map(|worker| async move {
        if let Err(error) = tell_worker(fleet, worker, scaling, ctx).await {
            tracing::warn!(dataset = fleet.dataset, error, "a worker did not take the member list");
        }
    });
    futures::future::join_all(told).await;
    Ok(())
}

/// Sends the member list to a worker that is behind it, then asks a leaving one to hand over. One that does not answer is
/// asked again at the next pass.
async fn tell_worker(fleet: &Fleet, worker: &Worker, scaling: &Scaling, ctx: &Context) -> Result<(), String> {
    let (Some(addr), Some(stats)) = (worker.addr(), &worker.stats) else { return Ok(()) };
    if stats.epoch < scaling.members.epoch {
        ctx.workers.set_members(fleet, &addr, &scaling.members).await?;
    }
    if scaling.draining.contains(&worker.ordinal) {
        ctx.workers.drain(fleet, &addr).await?;
    }
    Ok(())
}
