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
    Address, CallError, Client, Credential,
    message::{Request, Response, Role},
};

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
/// doubling to 2 s) after a failed attempt, so that a caller moves on to the next worker at once.
#[derive(Debug)]
pub struct Pool {
    role: Role,
    key: Credential,
    dataset: String,
    slots: Mutex<HashMap<Address, Arc<AsyncMutex<Slot>>>>,
    newest: watch::Sender<Sighting>,
}

#[derive(Debug, Default)]
struct Slot {
    client: Option<Client>,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    text: String,
    pause: Duration,
    until: Instant,
}

impl Pool {
    pub fn new(role: Role, key: Credential, dataset: impl Into<String>) -> Self {
        let newest = watch::Sender::new(Sighting::default());
        Self { role, key, dataset: dataset.into(), slots: Mutex::default(), newest }
    }

    /// Sends the request over the connection to `address`. A connection that turns out to be cut is renewed once.
    pub async fn call(&self, address: &Address, request: Request) -> Result<Response, CallError> {
        let (client, reused) = self.checkout(address).await?;
        let result = match client.call(request.clone()).await {
            Err(CallError::Connection(_)) if reused => {
                let (client, _) = self.checkout(address).await?;
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
        Ok(self.checkout(address).await?.0)
    }

    /// Changes whenever an answer carries a newer epoch than all before it.
    pub fn newest(&self) -> watch::Receiver<Sighting> {
        self.newest.subscribe()
    }

    /// Closes what is not in `wanted` once the calls in flight are over.
    pub fn retain(&self, wanted: &BTreeSet<Address>) {
        self.slots.lock().retain(|address, _| wanted.contains(address));
    }

    /// The client, and whether it was there before.
    async fn checkout(&self, address: &Address) -> Result<(Client, bool), CallError> {
        let slot = self.slots.lock().entry(address.clone()).or_default().clone();
        // Held while connecting: whoever wants the same worker waits for this attempt.
        let mut slot = slot.lock().await;
        if let Some(client) = slot.client.as_ref().filter(|client| !client.is_closed()) {
            return Ok((client.clone(), true));
        }
        if let Some(trouble) = slot.trouble.as_ref().filter(|trouble| Instant::now() < trouble.until) {
            return Err(CallError::Connection(trouble.text.clone()));
        }
        match Client::connect(address, self.role, &self.key, &self.dataset).await {
            Ok(client) => {
                self.saw(address, client.peer_epoch());
                *slot = Slot { client: Some(client.clone()), trouble: None };
                Ok((client, false))
            }
            Err(error) => {
                let text = error.to_string();
                let pause = slot.trouble.as_ref().map_or(FIRST_PAUSE, |t| (t.pause * 2).min(LONGEST_PAUSE));
                let trouble = Trouble { text: text.clone(), pause, until: Instant::now() + pause };
                *slot = Slot { client: None, trouble: Some(trouble) };
                Err(CallError::Connection(text))
            }
        }
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
