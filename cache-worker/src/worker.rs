//! The worker as the wire protocol sees it.

use std::{
    collections::HashMap,
    ops::Range,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::RwLock;
use penstock_curve::Sampler;
use penstock_model::{EXTENT, Medium, Object, ObjectKey};
use penstock_store::{Lent, Store};
use penstock_wire::{
    Attachment, FileRange, Reply, Service,
    config::WorkerConfig,
    message::{Description, Failure, MountStats, Pattern, Reach, Request, Response, Role, Stats, TierStats},
};
use tokio::task::{JoinError, spawn_blocking};

use crate::{
    census::Census,
    changes::{Change, Changes, Since},
    config::{Loaded, MountSpec},
    fill::{Fills, Upstream, locate},
    handover::{self, Courier, Drains},
    heat::Heat,
    load::{self, Loads},
    locals::Locals,
    members::Members,
    memory,
    metadata::{Catalog, Catalogs},
    metrics::{Metrics, Operation, medium_name},
    namespace::Namespace,
    pins::Pins,
    readers::Readers,
    source::Source,
};

/// How long others wait for a worker whose container starts again: longer than it takes with the image on the node, and
/// shorter than a reader would rather have the UFS asked.
const RESTART: Duration = Duration::from_secs(10);
/// Up to this many bytes a MEM tier is read on the runtime's own threads: a hop to another thread costs more.
const INLINE: u64 = 1 << 20;
/// From this many bytes on, what a memory tier has goes to the socket by sendfile.
const BULK: u32 = 64 << 10;

pub(crate) struct Worker {
    pub(crate) store: Store,
    pub(crate) members: Arc<Members>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) census: Census,
    pub(crate) changes: Arc<Changes>,
    heat: Heat,
    readers: Arc<Readers>,
    loads: Loads,
    locals: Arc<Locals>,
    config: RwLock<Arc<WorkerConfig>>,
    fills: Fills<Upstream>,
    catalogs: Catalogs,
    courier: Arc<Courier>,
    drains: Arc<Drains>,
    memory_only: bool,
}

impl Worker {
    pub(crate) fn new(loaded: &Loaded, store: Store, members: Arc<Members>, metrics: Arc<Metrics>) -> Self {
        let changes = Arc::<Changes>::default();
        let catalogs = Catalogs::new(catalog(loaded, &HashMap::new(), &metrics, &changes));
        let is_new = store.stats().cached_bytes == 0;
        let sampler = Arc::new(if is_new { Sampler::default() } else { Sampler::with_past() });
        let upstream = Upstream { members: members.clone(), catalogs: catalogs.clone(), sampler: sampler.clone() };
        let fills = Fills::new(store.clone(), upstream, metrics.clone());
        let courier = Arc::new(Courier::new(store.clone(), members.clone(), metrics.clone()));
        courier.limit(loaded.config.hand_over_bandwidth);
        let readers = Arc::new(Readers::new(metrics.clone(), members.clone(), sampler));
        let loads = Loads::new(load::Parts {
            store: store.clone(),
            fills: fills.clone(),
            members: members.clone(),
            catalogs: catalogs.clone(),
            readers: readers.clone(),
        });
        Self {
            locals: Arc::new(Locals::new(store.clone(), fills.clone(), members.clone(), metrics.clone())),
            fills,
            catalogs,
            drains: Arc::new(Drains::new(courier.clone(), members.clone())),
            courier,
            memory_only: loaded.config.tiers.iter().all(|tier| tier.medium == Medium::Mem),
            config: RwLock::new(Arc::new(loaded.config.clone())),
            pins: Arc::default(),
            census: Census::default(),
            changes,
            heat: Heat::new(Instant::now()),
            loads,
            readers,
            store,
            members,
            metrics,
        }
    }

    /// Takes a new configuration. Mounts that did not change keep their connections; unless only the member list did, all
    /// metadata is asked for anew.
    pub(crate) fn reload(&self, loaded: &Loaded) {
        if let Some(list) = &loaded.members {
            self.members.adopt(list.clone());
        }
        let kept: HashMap<_, _> =
            self.catalog().namespace.mounts().map(|source| (source.spec.path.clone(), source.clone())).collect();
        let is_kept = |spec: &MountSpec| kept.get(&spec.path).is_some_and(|source| source.spec == *spec);
        if **self.config.read() == loaded.config && loaded.mounts.iter().all(is_kept) {
            return;
        }
        if loaded.config.tiers != self.config.read().tiers {
            tracing::warn!("changed tiers take effect when the worker starts again");
        }
        self.catalogs.replace(catalog(loaded, &kept, &self.metrics, &self.changes));
        self.changes.note_all();
        self.courier.limit(loaded.config.hand_over_bandwidth);
        *self.config.write() = Arc::new(loaded.config.clone());
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalogs.current()
    }

    /// Asks the UFS of every mount that `which` picks.
    pub(crate) async fn probe(&self, which: impl Fn(&Source) -> bool) {
        let catalog = self.catalog();
        let probes = catalog.namespace.mounts().filter(|source| which(source)).map(|source| source.probe());
        futures::future::join_all(probes).await;
        let troubled = catalog.namespace.mounts().filter(|source| source.is_troubled()).count();
        self.metrics.mounts_in_trouble.set(troubled as u64);
    }

    /// Before the process ends: hands over if the worker is to leave the fleet, else asks the others to wait for it.
    pub(crate) async fn leave(&self, patience: Duration) {
        if !self.drains.leave(patience).await && !patience.is_zero() {
            self.members.spread_restart(RESTART).await;
        }
    }

    /// Moves what newcomers own to them. To be dropped when another member list comes.
    pub(crate) async fn settle(&self) {
        handover::settle(&self.courier, &self.members, &self.readers).await;
    }

    async fn answer(&self, role: Role, request: Request) -> Result<Reply, Failure> {
        if role == Role::Client {
            self.readers.asked(&request);
        }
        Ok(match request {
            Request::Describe => Response::Description(self.describe()).into(),
            Request::Stat { path } => {
                let catalog = self.catalog();
                let told = catalog.stat(&path).await?;
                Response::Attr { age_ms: catalog.age_ms(&told), attr: told.value }.into()
            }
            Request::List { path, after, limit } => {
                let catalog = self.catalog();
                let told = catalog.list(&path, after.as_deref(), limit).await?;
                let (age_ms, (entries, more)) = (catalog.age_ms(&told), told.value);
                Response::Entries { entries, more, age_ms }.into()
            }
            Request::Changes { since } => {
                let Since { next, changes } = self.changes.since(since).await?;
                Response::Changes { next, changes }.into()
            }
            Request::ReadLink { path } => Response::Target(self.catalog().read_link(&path).await?).into(),
            Request::Read { object, offset, len, pattern, reach } => {
                self.read(role, object, offset, len, pattern, reach).await?
            }
            Request::OpenLocal { object } => return self.open_local(object).await,
            Request::SetMembers(list) => {
                self.members.adopt(list);
                Response::Done.into()
            }
            Request::Stats => Response::Stats(Box::new(self.stats())).into(),
            Request::Drain => {
                self.drains.begin();
                Response::Done.into()
            }
            Request::Push { object, offset, data } => {
                self.keep(object, offset, data).await?;
                Response::Done.into()
            }
            Request::SetLoads(orders) => {
                self.loads.set(orders);
                Response::Done.into()
            }
            Request::Forget { path } => {
                self.catalog().forget(&path);
                Response::Done.into()
            }
            Request::Restarting { id, within_ms } => {
                self.members.restarting(id, Duration::from_millis(within_ms)).await;
                Response::Done.into()
            }
        })
    }

    fn describe(&self) -> Description {
        let config = self.config.read();
        Description {
            dataset: config.dataset.clone(),
            members: (*self.members.list()).clone(),
            revalidate_ms: config.revalidate_ms,
            uid: config.uid,
            gid: config.gid,
        }
    }

    async fn read(
        &self,
        role: Role,
        object: Object,
        offset: u64,
        len: u32,
        pattern: Pattern,
        reach: Reach,
    ) -> Result<Reply, Failure> {
        let (key, route) = (object.key, self.members.route(object.key, offset, reach));
        let length = u64::from(len);
        let stored = self.stored(&object, offset, len).await;
        let is_hit = stored.is_some();
        let reply = if let Some(reply) = stored {
            self.metrics.hits.inc();
            self.metrics.hit_bytes.inc_by(length);
            reply
        } else {
            let bytes = self.fetch(object.clone(), offset..offset + length, pattern, route).await?;
            self.metrics.misses.inc();
            self.metrics.miss_bytes.inc_by(length);
            Response::Data(bytes).into()
        };
        self.metrics.served.inc_by(length);
        if role == Role::Client {
            self.readers.served(&object, offset..offset + length, is_hit);
        }
        // So an owner asks for what it keeps from now on.
        if (role, reach) == (Role::Peer, Reach::Cache) {
            self.store.taken_over(&key, offset..offset + length);
        }
        // Only a reader asks the owner with [`Reach::Ufs`].
        Ok(if route == reach { reply } else { self.share(reply, (key, offset / EXTENT), length) })
    }

    async fn fetch(&self, object: Object, range: Range<u64>, pattern: Pattern, reach: Reach) -> Result<Bytes, Failure> {
        if reach == Reach::Cache {
            return Err(Failure::NotCached);
        }
        let object = Arc::new(object);
        let read = self.fills.read(&object, range, pattern, reach).await;
        if read == Err(Failure::Stale) {
            self.forget_everywhere(object.path.clone());
        }
        read
    }

    /// Tells a reader of a hot extent who else may be asked for it.
    fn share(&self, reply: Reply, extent: (ObjectKey, u64), bytes: u64) -> Reply {
        let list = self.members.list();
        match (self.heat.asked(extent, bytes, (list.epoch, list.members.len()), Instant::now()), reply) {
            (holders @ 2.., Reply { response: Response::Data(data), attachment }) => {
                self.metrics.shared.inc();
                Reply { response: Response::SharedData { data, holders }, attachment }
            }
            (_, reply) => reply,
        }
    }

    async fn stored(&self, object: &Object, offset: u64, len: u32) -> Option<Reply> {
        let range = offset..offset + u64::from(len);
        if len >= BULK
            && let Some(Lent { file, sums }) = self.store.lend(&object.key, range.clone())
        {
            let attachment = Attachment::File(FileRange { file: Box::new(file), range, sums });
            return Some(Reply { response: Response::Data(Bytes::new()), attachment });
        }
        let key = object.key;
        let bytes = self.with_store(len.into(), move |store| store.read(&key, offset, len as usize)).await.ok()??;
        Some(Response::Data(bytes).into())
    }

    /// Runs `work`, which reads some `bytes` of the store: here where that is quick, else on a thread that may block.
    async fn with_store<T: Send + 'static>(
        &self,
        bytes: u64,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        if self.memory_only && bytes <= INLINE {
            return Ok(work(&self.store));
        }
        let store = self.store.clone();
        spawn_blocking(move || work(&store)).await
    }

    /// The directory's owner may be another worker, and so may whoever stood in for it.
    fn forget_everywhere(&self, path: Vec<u8>) {
        self.catalog().forget(&path);
        self.changes.note([Change::Entry(path.clone())]);
        let members = self.members.clone();
        tokio::spawn(async move { members.spread_forget(&path).await });
    }

    async fn keep(&self, object: Object, offset: u64, data: Bytes) -> Result<(), Failure> {
        locate(&self.catalog(), &object)?;
        let store = self.store.clone();
        let written = spawn_blocking(move || store.write(&object, offset, &data)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::Unavailable(error.to_string())),
            Err(error) => Err(Failure::Unavailable(error.to_string())),
        }
    }

    async fn open_local(&self, object: Object) -> Result<Reply, Failure> {
        let (key, size) = (object.key, object.size);
        let mut descriptor = self.descriptor(key, size).await?;
        if descriptor.is_none() && self.locals.opened(object.clone()).await {
            descriptor = self.descriptor(key, size).await?;
        }
        let descriptor = descriptor.ok_or(Failure::NotCached)?;
        self.readers.opened(&object);
        Ok(Reply { response: Response::Descriptor, attachment: Attachment::Descriptor(descriptor) })
    }

    /// Of the cached file of an object that is whole here.
    async fn descriptor(&self, key: ObjectKey, size: u64) -> Result<Option<OwnedFd>, Failure> {
        let pins = self.pins.clone();
        let opened = self.with_store(size, move |store| pins.open(store, key)).await;
        let opened = opened.map_err(|error| Failure::Unavailable(error.to_string()))?;
        opened.map_err(|error| Failure::Unavailable(error.to_string()))
    }

    pub(crate) fn stats(&self) -> Stats {
        let (store, metrics, catalog) = (self.store.stats(), &self.metrics, self.catalog());
        let count = self.census.count();
        let tier = |tier: penstock_store::TierStats| TierStats {
            medium: medium_name(tier.medium).to_owned(),
            quota_bytes: tier.quota,
            used_bytes: tier.used,
            trouble: tier.trouble,
        };
        let mount = |source: &Arc<Source>| MountStats {
            path: source.spec.path.clone(),
            source: source.spec.source.clone(),
            health: source.health(),
        };
        Stats {
            epoch: self.epoch(),
            tiers: store.tiers.into_iter().map(tier).collect(),
            cached_bytes: store.cached_bytes,
            served_bytes: metrics.served.get(),
            hit_bytes: metrics.hit_bytes.get(),
            miss_bytes: metrics.miss_bytes.get(),
            ufs_bytes: metrics.ufs_bytes.get(),
            peer_bytes: metrics.peer_bytes.get(),
            ufs_errors: metrics.ufs_error_count(),
            mounts: catalog.namespace.mounts().map(mount).collect(),
            ufs_total_bytes: count.map(|count| count.bytes),
            ufs_files: count.map(|count| count.files),
            handover: self.drains.progress(),
            asked: self.readers.counted(),
            loads: self.loads.progress(),
            reuse: self.readers.reuse(),
        }
    }
}

impl Service for Worker {
    fn epoch(&self) -> u64 {
        self.members.list().epoch
    }

    async fn call(&self, role: Role, request: Request) -> Result<Reply, Failure> {
        let (operation, begun) = (operation(&request), Instant::now());
        let answer = self.answer(role, request).await;
        self.metrics.answered(operation, begun);
        if let Err(failure) = &answer
            && !matches!(failure, Failure::NotFound | Failure::NotADirectory | Failure::NotCached)
        {
            self.metrics.failures.get_or_create(&Operation { operation }).inc();
            tracing::debug!(operation, %failure, "answered with a failure");
        }
        answer
    }
}

fn operation(request: &Request) -> &'static str {
    match request {
        Request::Describe => "describe",
        Request::Stat { .. } => "stat",
        Request::List { .. } => "list",
        Request::Changes { .. } => "changes",
        Request::ReadLink { .. } => "read_link",
        Request::Read { reach: Reach::Ufs, .. } => "read",
        Request::Read { reach: Reach::Owner, .. } => "read_as_owner",
        Request::Read { reach: Reach::Cache, .. } => "read_cached",
        Request::OpenLocal { .. } => "open_local",
        Request::SetMembers(_) => "set_members",
        Request::Stats => "stats",
        Request::Drain => "drain",
        Request::Push { .. } => "push",
        Request::Forget { .. } => "forget",
        Request::SetLoads(_) => "set_loads",
        Request::Restarting { .. } => "restarting",
    }
}

fn catalog(
    loaded: &Loaded,
    kept: &HashMap<String, Arc<Source>>,
    metrics: &Arc<Metrics>,
    changes: &Arc<Changes>,
) -> Catalog {
    let open = |spec: &MountSpec| match kept.get(&spec.path).filter(|source| source.spec == *spec) {
        Some(source) => source.clone(),
        None => Arc::new(Source::open(spec.clone(), metrics.clone())),
    };
    let mounts = loaded.mounts.iter().map(|spec| (spec.path.clone().into_bytes(), open(spec)));
    let revalidate = loaded.config.revalidate_ms.map(Duration::from_millis);
    Catalog::new(Namespace::new(mounts), revalidate, memory::for_listings(&loaded.config.tiers), changes.clone())
}
