//! Writes what users are told, and the Events that go with it.

use jiff::Timestamp;
use kube::{Api, Resource, ResourceExt};
use penstock_api::{CacheRuntime, CacheRuntimeStatus, Dataset};

use super::{
    super::{apply::Error, events},
    View,
};
use crate::context::Context;

pub(in crate::controller) async fn publish(view: &View<'_>, ctx: &Context) -> Result<(), Error> {
    tokio::try_join!(dataset(view, ctx), of_pair(view, ctx)).map(drop)
}

async fn dataset(view: &View<'_>, ctx: &Context) -> Result<(), Error> {
    let dataset = view.dataset;
    let new = super::dataset(view, Timestamp::now());
    let old = dataset.status.clone().unwrap_or_default();
    if new == old {
        return Ok(());
    }
    let api = Api::<Dataset>::namespaced(ctx.client.clone(), &view.names.namespace);
    ctx.applier().status(&api, &view.names.dataset, &new).await?;
    ctx.recorder.publish(&dataset.object_ref(&()), events::transitions(&old.conditions, &new.conditions));
    Ok(())
}

async fn of_pair(view: &View<'_>, ctx: &Context) -> Result<(), Error> {
    let Some(runtime) = view.runtime else { return Ok(()) };
    let Some(new) = super::runtime(view, Timestamp::now()) else { return Ok(()) };
    let step = view.scaling.filter(|_| view.problem.is_none()).map(|scaling| &scaling.step);
    let was_draining = runtime.status.as_ref().is_some_and(|status| !status.draining.is_empty());
    let news = step.and_then(|step| events::scaling(was_draining, view.wanted(), step));
    let news = view.sizing.and_then(events::sizing).into_iter().chain(news);
    ctx.recorder.publish(&runtime.object_ref(&()), news);
    publish_runtime(runtime, &new, ctx).await
}

pub(in crate::controller) async fn publish_runtime(
    runtime: &CacheRuntime,
    new: &CacheRuntimeStatus,
    ctx: &Context,
) -> Result<(), Error> {
    let old = runtime.status.clone().unwrap_or_default();
    if *new == old {
        return Ok(());
    }
    let api = Api::<CacheRuntime>::namespaced(ctx.client.clone(), &runtime.namespace().unwrap_or_default());
    ctx.applier().status(&api, &runtime.name_any(), new).await?;
    ctx.recorder.publish(&runtime.object_ref(&()), events::transitions(&old.conditions, &new.conditions));
    Ok(())
}
