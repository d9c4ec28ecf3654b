//! What outlives the process that serves a mount: what was agreed on with the kernel, and the journal of what it relies
//! on. Knows neither the kernel's protocol nor the file system; both write down here what the next process needs.

pub mod journal;

use serde::{Deserialize, Serialize};

/// What was agreed on with the kernel, as far as it matters after the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// Whether the kernel reads local files by itself.
    pub passthrough: bool,
    /// Whether requests that nobody answered can be had again, by who takes the session over.
    pub resend: bool,
}
