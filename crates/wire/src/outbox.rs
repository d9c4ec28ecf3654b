//! The sending half of a connection.

use std::{io, sync::Arc};

use tokio::sync::Mutex;

use crate::{frame::OutFrame, socket::Socket};

/// Whoever has a frame writes it himself, in his turn: a task that wrote for all would have to be woken for each.
#[derive(Debug)]
pub(crate) struct Outbox {
    socket: Arc<Socket>,
    turn: Arc<Mutex<()>>,
}

impl Outbox {
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        Self { socket, turn: Arc::default() }
    }

    /// Returns when the socket has all of the frame. One that was begun is finished even when the caller gives up, since
    /// half a frame would spoil the stream. After an error the connection is shut in both directions.
    pub(crate) async fn send(&self, mut frame: OutFrame) -> io::Result<()> {
        let turn = self.turn.clone().lock_owned().await;
        let done = frame.write_some(&self.socket);
        if matches!(done, Ok(false)) {
            let socket = self.socket.clone();
            let rest = tokio::spawn(async move {
                let _turn = turn;
                frame.write_rest(&socket).await.inspect_err(|_| socket.shut())
            });
            return rest.await.map_err(io::Error::other)?;
        }
        done.map(drop).inspect_err(|_| self.socket.shut())
    }

    /// Ends the connection, so that whoever reads from it wakes.
    pub(crate) fn shut(&self) {
        self.socket.shut();
    }
}
