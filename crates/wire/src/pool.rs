use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::{Instant, timeout},
};

use crate::{
    Address, CallError, Caller, Client,
    message::{Request, Response},
};

/// Reads up to this many bytes are small.
const SMALL: u32 = 64 << 10;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a worker may take to say that it is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// The newest member-list epoch that any answer carried, and who named it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    pub epoch: u64,
    pub address: Option<Address>,
}

/// Connections by address: made when first needed, shared, renewed when cut, and left alone for a while (100 ms,
/// doubling to 2 s) after a failed attempt, so that a caller moves on to the next worker at once. What is small has a
/// connection of its own, so that it never waits behind bytes in bulk; those have up to two, for one is no more than one core's
/// work at either end.
#[derive(Debug)]
pub struct Pool {
    caller: Caller,
    slots: Mutex<HashMap<Route, Arc<AsyncMutex<Slot>>>>,
    newest: watch::Sender<Sighting>,
}

/// A worker, and what it is asked for.
type Route = (Address, Lane);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Small,
    Bulk,
}

impl Lane {
    fn of(request: &Request) -> Self {
        match request {
            Request::Push { .. } => Self::Bulk,
            Request::Read { len, .. } if *len > SMALL => Self::Bulk,
            _ => Self::Small,
        }
    }

    /// Connections to one worker.
    fn most(self) -> usize {
        match self {
            Self::Small => 1,
            Self::Bulk => 2,
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    clients: Vec<Client>,
    trouble: Option<Trouble>,
}

impl Slot {
    fn least_used(&mut self) -> Option<Client> {
        self.clients.retain(|client| !client.is_closed());
        self.clients.iter().min_by_key(|client| client.in_flight()).cloned()
    }

    fn trouble(&self) -> Option<CallError> {
        let trouble = self.trouble.as_ref().filter(|trouble| Instant::now() < trouble.until)?;
        Some(CallError::Connection(trouble.text.clone()))
    }

    fn fail(&mut self, text: String) -> CallError {
        let pause = self.trouble.as_ref().map_or(FIRST_PAUSE, |t| (t.pause * 2).min(LONGEST_PAUSE));
        self.trouble = Some(Trouble { text: text.clone(), pause, until: Instant::now() + pause });
        CallError::Connection(text)
    }
}

#[derive(Debug)]
struct Trouble {
    text: String,
    pause: Duration,
    until: Instant,
}

impl Pool {
    pub fn new(caller: Caller) -> Self {
        Self { caller, slots: Mutex::default(), newest: watch::Sender::new(Sighting::default()) }
    }

    /// Sends the request over the connection to `address`. A connection that turns out to be cut is renewed once.
    pub async fn call(&self, address: &Address, request: Request) -> Result<Response, CallError> {
        let lane = Lane::of(&request);
        let (client, reused) = self.checkout(address, lane).await?;
        let result = match client.call(request.clone()).await {
            Err(CallError::Connection(_)) if reused => {
                let (client, _) = self.checkout(address, lane).await?;
                let result = client.call(request).await;
                self.saw(address, client.peer_epoch());
                result
            }
            result => result,
        };
        self.saw(address, client.peer_epoch());
        result
    }

    /// As [`Self::call`], and waits as long as the worker shows signs of life meanwhile: it is asked for one each time that
    /// the answer takes `probe_after` longer. A slow UFS is no reason to have another worker fetch the same.
    pub async fn call_patiently(
        &self,
        address: &Address,
        request: Request,
        probe_after: Duration,
    ) -> Result<Response, CallError> {
        let mut call = std::pin::pin!(self.call(address, request));
        loop {
            match timeout(probe_after, &mut call).await {
                Ok(result) => return result,
                Err(_) if self.is_alive(address).await => {}
                Err(_) => return Err(CallError::Timeout),
            }
        }
    }

    async fn is_alive(&self, address: &Address) -> bool {
        matches!(timeout(SIGN_OF_LIFE, self.call(address, Request::Describe)).await, Ok(Ok(_)))
    }

    /// The connection itself, for [`Client::open_local`].
    pub async fn client(&self, address: &Address) -> Result<Client, CallError> {
        Ok(self.checkout(address, Lane::Small).await?.0)
    }

    /// Changes whenever an answer carries a newer epoch than all before it.
    pub fn newest(&self) -> watch::Receiver<Sighting> {
        self.newest.subscribe()
    }

    /// Forgets failed attempts at `address`, which is known to be there.
    pub async fn retry_now(&self, address: &Address) {
        let of_address = |(route, slot): (&Route, &Arc<AsyncMutex<Slot>>)| (route.0 == *address).then(|| slot.clone());
        let slots: Vec<_> = self.slots.lock().iter().filter_map(of_address).collect();
        for slot in slots {
            slot.lock().await.trouble = None;
        }
    }

    /// Closes what is not in `wanted` once the calls in flight are over.
    pub fn retain(&self, wanted: &BTreeSet<Address>) {
        self.slots.lock().retain(|(address, _), _| wanted.contains(address));
    }

    /// The client, and whether it was there before.
    async fn checkout(&self, address: &Address, lane: Lane) -> Result<(Client, bool), CallError> {
        let slot = self.slots.lock().entry((address.clone(), lane)).or_default().clone();
        // Held while connecting: whoever wants the same worker waits for this attempt.
        let mut slot = slot.lock().await;
        let present = slot.least_used();
        let enough = |client: &Client| client.in_flight() == 0 || slot.clients.len() >= lane.most();
        if let Some(client) = present.as_ref().filter(|client| enough(client)) {
            return Ok((client.clone(), true));
        }
        let made = match slot.trouble() {
            Some(trouble) => Err(trouble),
            None => self.connect(address, &mut slot).await,
        };
        // One that is in use is better than none.
        match (made, present) {
            (Ok(client), _) => Ok((client, false)),
            (Err(_), Some(client)) => Ok((client, true)),
            (Err(error), None) => Err(error),
        }
    }

    async fn connect(&self, address: &Address, slot: &mut Slot) -> Result<Client, CallError> {
        let client = Client::connect(address, &self.caller).await.map_err(|error| slot.fail(error.to_string()))?;
        self.saw(address, client.peer_epoch());
        slot.clients.push(client.clone());
        slot.trouble = None;
        Ok(client)
    }

    fn saw(&self, address: &Address, epoch: u64) {
        self.newest.send_if_modified(|newest| {
            let newer = epoch > newest.epoch;
            if newer {
                *newest = Sighting { epoch, address: Some(address.clone()) };
            }
            newer
        });
    }
}
