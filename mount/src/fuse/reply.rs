//! The answer that each request must get, once.

use std::sync::Arc;

use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use super::device::Device;

/// Of one request. Dropped without an answer, as when its task is given up, it says `EINTR`.
pub(super) struct Reply {
    device: Arc<Device>,
    unique: u64,
    open: bool,
}

impl Reply {
    pub(super) fn new(device: Arc<Device>, unique: u64) -> Self {
        Self { device, unique, open: true }
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn error(mut self, errno: Errno) {
        self.open = false;
        self.device.refuse(self.unique, errno);
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) {
        self.open = false;
        self.device.answer(self.unique, &[bytes]);
    }

    pub(super) fn ok(self) {
        self.bytes(&[]);
    }

    pub(super) fn value(self, value: &(impl IntoBytes + Immutable)) {
        self.bytes(value.as_bytes());
    }

    /// The value of an outcome, made by `show`, or its error.
    pub(super) fn outcome<T, V: IntoBytes + Immutable>(self, outcome: Result<T, Errno>, show: impl FnOnce(T) -> V) {
        match outcome {
            Ok(value) => self.value(&show(value)),
            Err(errno) => self.error(errno),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.open {
            self.device.refuse(self.unique, Errno::INTR);
        }
    }
}
