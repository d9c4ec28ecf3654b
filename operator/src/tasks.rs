//! Background tasks that live as long as the operator. One that ends earlier ends the operator: what it kept up to date
//! would stand still without anyone noticing.

use std::{collections::HashMap, future::pending};

use tokio::task::{Id, JoinError, JoinSet};

/// A background task that ended although the operator was not told to stop.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the background task '{task}' {how}; the operator cannot go on without it")]
pub struct Ended {
    pub task: String,
    how: String,
}

/// Tasks under way, by name. Dropping it ends them.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, String>,
}

impl Tasks {
    pub fn spawn(&mut self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name.into());
    }

    /// Waits for the first task that ends, by itself or by a panic. Cancel-safe.
    pub async fn ended(&mut self) -> Ended {
        match self.set.join_next_with_id().await {
            None => pending().await,
            Some(Ok((id, ()))) => self.why(id, "ended".into()),
            Some(Err(error)) => self.why(error.id(), how(error)),
        }
    }

    fn why(&mut self, id: Id, how: String) -> Ended {
        Ended { task: self.names.remove(&id).unwrap_or_default(), how }
    }
}

fn how(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "was cancelled".into() };
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_named_and_those_that_run_are_not() {
        let mut tasks = Tasks::default();
        tasks.spawn("runs", pending());
        tasks.spawn("ends", async {});
        let ended = tasks.ended().await;
        assert_eq!((ended.task.as_str(), ended.how.as_str()), ("ends", "ended"));
        tasks.spawn("panics", async { panic!("no {}", "way") });
        assert!(tasks.ended().await.to_string().starts_with("the background task 'panics' panicked: no way;"));
    }
}
