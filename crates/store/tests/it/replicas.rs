//! What belongs to other workers: it goes first, and takes no room from what is owned.

use penstock_model::{Object, ObjectKey};
use penstock_store::{Claim, Store, WriteError};

use crate::support::{MIB, content, object, ssd, write_all};

const QUOTA: u64 = 16 * MIB;

/// Objects from `first` on belong to others.
fn claim_below(store: &Store, first: usize, all: &[Object]) {
    let owned: Vec<ObjectKey> = all[..first].iter().map(|object| object.key).collect();
    store.claim(owners_of(owned));
}

fn owners_of(owned: Vec<ObjectKey>) -> impl Fn(ObjectKey, u32) -> Claim {
    move |key, _| if owned.contains(&key) { Claim::Owner } else { Claim::None }
}

fn objects(count: u64) -> Vec<Object> {
    (0..count).map(|number| object(number, MIB)).collect()
}

fn has(store: &Store, object: &Object) -> bool {
    store.missing(&object.key, object.size, 0..object.size).is_empty()
}

fn held(store: &Store, objects: &[Object]) -> usize {
    objects.iter().filter(|object| has(store, object)).count()
}

#[test]
fn replicas_leave_first_however_popular_they_are() {
    let (dir, all) = (tempfile::tempdir().unwrap(), objects(40));
    let store = ssd(dir.path(), QUOTA);
    let (owned, replicas) = all.split_at(36);
    claim_below(&store, 36, &all);
    owned[..8].iter().chain(replicas).for_each(|object| write_all(&store, object));
    for _ in 0..20 {
        for replica in replicas {
            assert!(store.read(&replica.key, 0, MIB as usize).is_some());
        }
    }
    owned[8..12].iter().for_each(|object| write_all(&store, object));
    assert_eq!((held(&store, owned), held(&store, replicas)), (12, 0));
}

#[test]
fn a_replica_takes_the_place_of_replicas_only() {
    let (dir, all) = (tempfile::tempdir().unwrap(), objects(40));
    let store = ssd(dir.path(), QUOTA);
    claim_below(&store, 10, &all);
    let (owned, replicas) = all.split_at(10);
    owned.iter().for_each(|object| write_all(&store, object));
    let room = store.room_for_replicas();
    assert!((4 * MIB..6 * MIB).contains(&room), "{room}");
    replicas.iter().for_each(|object| write_all(&store, object));
    assert_eq!((held(&store, owned), held(&store, replicas)), (10, 4));
    assert!(store.room_for_replicas() + MIB / 4 > room, "what replicas take is room for others");

    // Without a replica to take the place of there is no room, though the quota has some.
    replicas.iter().for_each(|object| {
        store.remove_object(&object.key);
    });
    claim_below(&store, 14, &all);
    all[10..14].iter().for_each(|object| write_all(&store, object));
    let large = object(99, 2 * MIB);
    let refused = store.write(&large, 0, &content(&large, 0..2 * MIB));
    assert!(matches!(refused, Err(WriteError::Full)), "{refused:?}");
    assert_eq!(held(&store, &all[..14]), 14);
}

#[test]
fn what_becomes_owned_stays_and_what_is_lost_goes_first() {
    let (dir, all) = (tempfile::tempdir().unwrap(), objects(20));
    let store = ssd(dir.path(), QUOTA);
    claim_below(&store, 6, &all);
    all[..12].iter().for_each(|object| write_all(&store, object));
    // The other half is owned now.
    let owned: Vec<ObjectKey> = all[6..].iter().map(|object| object.key).collect();
    store.claim(owners_of(owned));
    let counted = |store: &Store| (store.stats().cached_bytes, store.stats().replica_bytes);
    assert_eq!(counted(&store), (6 * MIB, 6 * MIB));
    all[12..18].iter().for_each(|object| write_all(&store, object));
    assert_eq!(held(&store, &all[6..18]), 12);
    let left = held(&store, &all[..6]) as u64;
    assert!(left < 3);
    assert_eq!(counted(&store), (12 * MIB, left * MIB));
}

#[test]
fn what_a_former_owner_has_stays_its_own_until_the_owner_has_all_of_it_and_what_it_gets_is_a_replica() {
    let (dir, all) = (tempfile::tempdir().unwrap(), objects(3));
    let store = ssd(dir.path(), QUOTA);
    write_all(&store, &all[0]);
    write_all(&store, &all[1]);
    store.claim(|_, _| Claim::FormerOwner);
    write_all(&store, &all[2]);
    let counted = || (store.stats().cached_bytes, store.stats().replica_bytes);
    assert_eq!(counted(), (2 * MIB, MIB));
    store.taken_over(&all[0].key, 0..MIB / 2);
    assert_eq!(counted(), (2 * MIB, MIB), "half of it");
    store.taken_over(&all[0].key, 0..MIB);
    assert_eq!(counted(), (MIB, 2 * MIB));
    assert!(has(&store, &all[0]), "it leaves when room is needed only");
    store.claim(|_, _| Claim::Owner);
    store.taken_over(&all[1].key, 0..MIB);
    assert_eq!(counted(), (3 * MIB, 0));
}
