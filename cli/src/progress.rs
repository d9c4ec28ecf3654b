//! How far a DataLoad is, as a bar on a terminal. Elsewhere nothing is drawn.

use indicatif::{ProgressBar, ProgressStyle};
use penstock_api::DataLoadStatus;

use crate::load::message;

pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(name: &str) -> Self {
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {msg}");
        let bar = ProgressBar::new(0).with_prefix(name.to_owned());
        Self(style.map(|style| bar.clone().with_style(style)).unwrap_or(bar))
    }

    pub(crate) fn show(&self, status: &DataLoadStatus) {
        self.0.set_length(status.bytes.unwrap_or_default());
        self.0.set_position(status.done_bytes.unwrap_or_default());
        self.0.set_message(beside(status));
    }

    pub(crate) fn finish(self, status: &DataLoadStatus) {
        self.show(status);
        self.0.abandon();
    }
}

/// Rate and time left; before there is a rate, what it waits for.
fn beside(status: &DataLoadStatus) -> String {
    let display = status.display.clone().unwrap_or_default();
    match (display.rate, display.eta) {
        (Some(rate), Some(eta)) => format!("{rate}, {eta} left"),
        (Some(rate), None) => rate,
        (None, _) if status.bytes.is_none() => message(status).to_owned(),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_waits_says_what_for_and_one_that_moves_how_fast() {
        let waiting = DataLoadStatus::default();
        assert_eq!(beside(&waiting), "");
        let moving = DataLoadStatus {
            bytes: Some(200 << 20),
            done_bytes: Some(100 << 20),
            bytes_per_second: Some(10 << 20),
            eta_seconds: Some(10),
            ..DataLoadStatus::default()
        };
        assert_eq!(beside(&moving.with_derived()), "10.0MiB/s, 10s left");
    }
}
