//! What a link allows: bytes of a file sent over it by a bare loop, without anything of ours.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::fs::sendfile;

use super::{figures::median, fleet::Place};

const BLOCK: usize = 4 << 10;

/// Gigabytes per second of `file`, sent whole by `sendfile` and received into one buffer of 1 MiB.
pub(super) fn sequential(from: &Place, to: &Place, file: &Path) -> anyhow::Result<f64> {
    let file = File::open(file)?;
    let total = file.metadata()?.len();
    let send = move |stream: TcpStream| {
        let mut at = 0;
        while at < total {
            let left = (total - at) as usize;
            sendfile(&stream, &file, Some(&mut at), left)?;
        }
        anyhow::Ok(())
    };
    over(from, to, send, move |mut stream| {
        let (begun, mut received, mut buffer) = (Instant::now(), 0, vec![0; 1 << 20]);
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                count => received += count as u64,
            }
        }
        ensure!(received == total, "{received} bytes of {total} arrived");
        Ok(total as f64 / begun.elapsed().as_secs_f64() / 1e9)
    })
}

/// Microseconds, the median, from a request for 4 KiB at random to the last of them, one after the other.
pub(super) fn round_trip(from: &Place, to: &Place, file: &Path, duration: Duration) -> anyhow::Result<f64> {
    let file = File::open(file)?;
    let blocks = file.metadata()?.len() / BLOCK as u64;
    let answer = move |mut stream: TcpStream| {
        let (mut request, mut block) = ([0; 8], [0; BLOCK]);
        while stream.read_exact(&mut request).is_ok() {
            file.read_exact_at(&mut block, u64::from_le_bytes(request))?;
            stream.write_all(&block)?;
        }
        anyhow::Ok(())
    };
    over(from, to, answer, move |mut stream| {
        let (begun, mut took, mut block) = (Instant::now(), Vec::new(), [0; BLOCK]);
        while begun.elapsed() < duration {
            let number = (took.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % blocks;
            let asked = Instant::now();
            stream.write_all(&(number * BLOCK as u64).to_le_bytes())?;
            stream.read_exact(&mut block)?;
            took.push(asked.elapsed().as_secs_f64() * 1e6);
        }
        Ok(median(took))
    })
}

/// Runs `receive` at `to` with a connection to `send` at `from`.
fn over<T: Send>(
    from: &Place,
    to: &Place,
    send: impl FnOnce(TcpStream) -> anyhow::Result<()> + Send + 'static,
    receive: impl FnOnce(TcpStream) -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let listener = from.run(|| Ok(TcpListener::bind((from.address, 0))?))?;
    let address: SocketAddr = listener.local_addr()?;
    // A connection belongs to the listener's network, whoever accepts it.
    let server = thread::spawn(move || {
        let stream = listener.accept()?.0;
        stream.set_nodelay(true)?;
        send(stream)
    });
    let result = to.run(move || {
        let stream = TcpStream::connect(address).context("connecting over the link")?;
        stream.set_nodelay(true)?;
        receive(stream)
    })?;
    server.join().map_err(|_| anyhow::anyhow!("the bare sender panicked"))??;
    Ok(result)
}
