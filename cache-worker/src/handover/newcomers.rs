//! What newcomers own goes to them in the background, before readers ask them for it. What they are asked for earlier they
//! take from its former owners themselves.

use std::{cmp::Reverse, time::Duration};

use penstock_store::{Claim, ExtentInfo};
use tokio::time::{Instant, sleep};

use super::courier::Courier;
use crate::{members::Members, readers::Readers};

/// Readers are about when one asked within this time.
const ABOUT: Duration = Duration::from_secs(1);
/// While they are, pauses are so many times as long as the work.
const POLITE: u32 = 3;

/// Sends each extent that this worker was the last to own to its owner by the present list, the hottest first and one at
/// a time. To be dropped when another list comes.
pub(crate) async fn settle(courier: &Courier, members: &Members, readers: &Readers) {
    let list = members.list();
    if members.has_left(&list) {
        return;
    }
    for extent in moving(courier, members) {
        let Some(owner) = list.owner(extent.object.key.placement(extent.range().start)) else { return };
        let begun = Instant::now();
        if courier.send(&extent, &[owner], drop).await {
            courier.store.taken_over(&extent.object.key, extent.range());
        }
        if readers.are_about(ABOUT) {
            sleep(begun.elapsed() * POLITE).await;
        }
    }
}

/// What other workers take from here already is left out.
fn moving(courier: &Courier, members: &Members) -> Vec<ExtentInfo> {
    let (mut extents, claim) = (courier.store.extents(), members.claims());
    extents.retain(|extent| !extent.is_replica && claim(extent.object.key, extent.extent) == Claim::FormerOwner);
    extents.sort_by_key(|extent| Reverse(extent.heat));
    extents
}
