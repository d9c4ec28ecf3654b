//! Frames: a fixed header, a message in CBOR, checksums, and bulk bytes that are never copied into the message.
//!
//! | bytes | content (little endian) |
//! |---|---|
//! | 0..2 | `Ps` |
//! | 2 | version of the protocol |
//! | 3 | flags: 1 the message is a [`Failure`], 2 a descriptor travels with the header's first byte |
//! | 4..8, 8..12 | lengths of message and bulk bytes |
//! | 12..16 | 0 |
//! | 16..24 | id of the request, repeated in its answer |
//! | 24..32 | newest member-list epoch that the sender knows |
//! | … | the message |
//! | … | with [`Features::CHECKSUMS`]: that of all before (u32), and of each [`BLOCK`] of the bulk bytes (u32) |
//! | … | the bulk bytes |
//!
//! A message that cannot be understood spoils nothing: its frame has a length, and the sender is told.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use minicbor::Encode;
use penstock_model::{BLOCK, block_sums, short_sum};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    hello::{Features, RELEASE, Session},
    message::{Failure, MAX_READ, Request, Response},
    socket::Socket,
};

const MAGIC: [u8; 2] = *b"Ps";
const HEADER: usize = 32;
const FAILURE: u8 = 1;
const DESCRIPTOR: u8 = 2;
/// Bytes of one checksum.
const SUM: usize = 4;
/// Bodies up to this size are taken from the read buffer, longer ones are read straight into their own memory.
const BUFFERED: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection was cut within a frame")]
    Cut,
    #[error("not a frame of the agreed version")]
    Header,
    #[error("a frame's header or message was changed on its way: its checksum is wrong")]
    Corrupt,
    #[error("a frame of {0} bytes is larger than allowed")]
    Oversized(u64),
    #[error("a message that cannot be encoded")]
    Message,
}

/// The longest frames that a side takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) message: u32,
    pub(crate) body: u32,
}

impl Limits {
    pub(crate) const ANSWER: Self = Self { message: 16 << 20, body: MAX_READ as u32 };
    pub(crate) const FROM_PEER: Self = Self { message: 4 << 20, body: MAX_READ as u32 };
    pub(crate) const FROM_CLIENT: Self = Self { message: 64 << 10, body: 0 };
}

/// How frames of a connection look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) version: u8,
    pub(crate) checksums: bool,
}

impl From<&Session> for Format {
    fn from(session: &Session) -> Self {
        Self { version: session.version as u8, checksums: session.features.contains(Features::CHECKSUMS) }
    }
}

impl Format {
    /// Bytes of checksums in a frame.
    fn sums(self, body: usize) -> usize {
        if self.checksums { SUM * (1 + body.div_ceil(BLOCK as usize)) } else { 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    flags: u8,
    message: u32,
    body: u32,
    pub(crate) id: u64,
    pub(crate) epoch: u64,
}

impl Header {
    fn encode(self, version: u8, mut out: &mut [u8]) {
        out.put_slice(&MAGIC);
        out.put_u8(version);
        out.put_u8(self.flags);
        out.put_u32_le(self.message);
        out.put_u32_le(self.body);
        out.put_u32_le(0);
        out.put_u64_le(self.id);
        out.put_u64_le(self.epoch);
    }

    fn decode(mut bytes: &[u8], version: u8, limits: Limits) -> Result<Self, FrameError> {
        let known = bytes.len() >= HEADER && bytes[..2] == MAGIC && bytes[2] == version;
        if !known || bytes[3] & !(FAILURE | DESCRIPTOR) != 0 {
            return Err(FrameError::Header);
        }
        bytes.advance(3);
        let flags = bytes.get_u8();
        let (message, body) = (bytes.get_u32_le(), bytes.get_u32_le());
        if message > limits.message || body > limits.body {
            return Err(FrameError::Oversized(u64::from(message) + u64::from(body)));
        }
        bytes.advance(4);
        Ok(Self { flags, message, body, id: bytes.get_u64_le(), epoch: bytes.get_u64_le() })
    }
}

/// Bytes of a file that go from the kernel's cache to the socket, without being copied here.
pub struct FileRange {
    /// Open for reading; let go once the socket has the bytes.
    pub file: Box<dyn AsFd + Send + Sync>,
    /// Within the file, and not empty.
    pub range: Range<u64>,
    /// Of each [`BLOCK`] of the range, as they were when the bytes were last known to be right.
    pub sums: Vec<u32>,
}

impl fmt::Debug for FileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileRange").field(&self.range).finish()
    }
}

/// What goes along with an answer.
#[derive(Debug, Default)]
pub enum Attachment {
    #[default]
    Nothing,
    /// With [`Response::Descriptor`], over unix sockets.
    Descriptor(OwnedFd),
    /// The bytes of [`Response::Data`] or [`Response::SharedData`], which is empty then.
    File(FileRange),
}

#[derive(Debug)]
enum Body {
    Bytes(Bytes),
    File(FileRange),
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(FileRange { range, .. }) => (range.end - range.start) as usize,
        }
    }

    fn sums(&self) -> Vec<u32> {
        match self {
            Self::Bytes(bytes) => block_sums(bytes),
            Self::File(part) => part.sums.clone(),
        }
    }
}

/// A frame to be written. What it holds is let go once it is.
#[derive(Debug)]
pub(crate) struct OutFrame {
    /// All but the bulk bytes.
    head: Vec<u8>,
    body: Body,
    fd: Option<OwnedFd>,
    /// Bytes of head and body that the socket has.
    written: usize,
}

impl OutFrame {
    pub(crate) fn request(format: Format, id: u64, epoch: u64, mut request: Request) -> Result<Self, FrameError> {
        let body = request_body(&mut request).map(std::mem::take).unwrap_or_default();
        let header = Header { flags: 0, message: 0, body: 0, id, epoch };
        Self::new(format, header, &request, Body::Bytes(body), None)
    }

    pub(crate) fn answer(
        format: Format,
        id: u64,
        epoch: u64,
        answer: Result<(Response, Attachment), Failure>,
    ) -> Result<Self, FrameError> {
        let header = Header { flags: 0, message: 0, body: 0, id, epoch };
        let (mut response, attachment) = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                let header = Header { flags: FAILURE, ..header };
                return Self::new(format, header, &failure, Body::Bytes(Bytes::new()), None);
            }
        };
        let data = response_body(&mut response).map(std::mem::take);
        let (body, fd) = match attachment {
            Attachment::File(part) if data.is_some() => (Body::File(part), None),
            Attachment::Descriptor(fd) => (Body::Bytes(Bytes::new()), Some(fd)),
            Attachment::Nothing | Attachment::File(_) => (Body::Bytes(data.unwrap_or_default()), None),
        };
        Self::new(format, header, &response, body, fd)
    }

    /// `header` lacks the lengths.
    fn new<M: Encode<()>>(
        format: Format,
        mut header: Header,
        message: &M,
        body: Body,
        fd: Option<OwnedFd>,
    ) -> Result<Self, FrameError> {
        let mut head = vec![0; HEADER];
        minicbor::encode(message, &mut head).map_err(|_| FrameError::Message)?;
        let message = head.len() - HEADER;
        if message > Limits::ANSWER.message as usize || body.len() > Limits::ANSWER.body as usize {
            return Err(FrameError::Oversized((message + body.len()) as u64));
        }
        header.flags |= if fd.is_some() { DESCRIPTOR } else { 0 };
        (header.message, header.body) = (message as u32, body.len() as u32);
        header.encode(format.version, &mut head[..HEADER]);
        if format.checksums {
            head.reserve(format.sums(body.len()));
            head.put_u32_le(head_sum(&head, &[]));
            body.sums().into_iter().for_each(|sum| head.put_u32_le(sum));
        }
        Ok(Self { head, body, fd, written: 0 })
    }

    /// Writes what the socket takes at once. Whether that was all.
    pub(crate) fn write_some(&mut self, socket: &Socket) -> io::Result<bool> {
        let total = self.head.len() + self.body.len();
        while self.written < total {
            match self.write_part(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write_part(&mut self, socket: &Socket) -> io::Result<usize> {
        if let Some(fd) = self.fd.take() {
            // It travels with the first byte.
            return socket.try_write_with_fd(&self.head, &fd).inspect_err(|_| self.fd = Some(fd));
        }
        let head = self.written.min(self.head.len());
        let (rest, sent) = (&self.head[head..], self.written - head);
        match &self.body {
            Body::Bytes(bytes) => socket.try_write(&[IoSlice::new(rest), IoSlice::new(&bytes[sent..])]),
            Body::File(_) if !rest.is_empty() => socket.try_write_more(rest),
            Body::File(part) => socket.try_send_file(&*part.file, part.range.start + sent as u64..part.range.end),
        }
    }

    /// Waits for the socket until it has all.
    pub(crate) async fn write_rest(mut self, socket: &Socket) -> io::Result<()> {
        while !self.write_some(socket)? {
            socket.writable().await?;
        }
        Ok(())
    }
}

/// Where a request carries bulk bytes.
fn request_body(request: &mut Request) -> Option<&mut Bytes> {
    match request {
        Request::Push { data, .. } => Some(data),
        _ => None,
    }
}

/// Where an answer carries bulk bytes.
fn response_body(response: &mut Response) -> Option<&mut Bytes> {
    match response {
        Response::Data(data) | Response::SharedData { data, .. } => Some(data),
        _ => None,
    }
}

fn head_sum(header: &[u8], message: &[u8]) -> u32 {
    let mut hash = Xxh3::new();
    hash.update(header);
    hash.update(message);
    short_sum(hash.digest())
}

#[derive(Debug)]
pub(crate) struct InFrame {
    pub(crate) header: Header,
    message: Bytes,
    /// Of the body, where the connection has them.
    sums: Option<Bytes>,
    body: Bytes,
    fd: Option<OwnedFd>,
}

/// Why an answer is of no use, though its frame is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("its bytes were changed on their way: a checksum is wrong")]
    Corrupt,
    #[error("this release does not understand it")]
    Unknown,
}

impl InFrame {
    pub(crate) fn into_request(self) -> Result<Request, Failure> {
        let mut request: Request = minicbor::decode(&self.message).map_err(|error| {
            Failure::Unsupported(format!("this worker (release {RELEASE}) does not understand the request: {error}"))
        })?;
        match request_body(&mut request) {
            Some(_) if !self.is_right() => return Err(Failure::Corrupt),
            Some(data) => *data = self.body,
            None if self.body.is_empty() => {}
            None => return Err(Failure::BadRequest("bulk bytes where none belong".into())),
        }
        Ok(request)
    }

    pub(crate) fn into_answer(self) -> Result<(Result<Response, Failure>, Option<OwnedFd>), Unusable> {
        if self.header.flags & FAILURE != 0 {
            return Ok((Err(minicbor::decode(&self.message).map_err(|_| Unusable::Unknown)?), None));
        }
        let mut response = minicbor::decode(&self.message).map_err(|_| Unusable::Unknown)?;
        if let Some(data) = response_body(&mut response) {
            if !self.is_right() {
                return Err(Unusable::Corrupt);
            }
            *data = self.body;
        }
        Ok((Ok(response), self.fd))
    }

    /// Whether the bulk bytes are what was sent, as far as one can tell.
    fn is_right(&self) -> bool {
        let Some(sums) = &self.sums else { return true };
        let sent = sums.chunks_exact(SUM).map(|mut sum| sum.get_u32_le());
        sent.eq(block_sums(&self.body))
    }
}

pub(crate) struct FrameReader {
    socket: Arc<Socket>,
    format: Format,
    limits: Limits,
    buffer: BytesMut,
    /// Whether descriptors are taken; a side that does not lets the kernel discard them.
    take_fds: bool,
    fds: VecDeque<OwnedFd>,
}

impl FrameReader {
    pub(crate) fn new(socket: Arc<Socket>, format: Format, limits: Limits, take_fds: bool) -> Self {
        Self { socket, format, limits, buffer: BytesMut::new(), take_fds, fds: VecDeque::new() }
    }

    /// The next frame, or `None` when the stream ended between two.
    pub(crate) async fn next(&mut self) -> Result<Option<InFrame>, FrameError> {
        if self.buffer.is_empty() && self.fill().await? == 0 {
            return Ok(None);
        }
        self.fill_to(HEADER).await?;
        let header = Header::decode(&self.buffer[..HEADER], self.format.version, self.limits)?;
        let first = self.buffer.split_to(HEADER);
        // The kernel delivers a descriptor no later than the first byte that it was sent with.
        let fd = if header.flags & DESCRIPTOR == 0 { None } else { self.fds.pop_front() };
        let message = self.take(header.message as usize).await?;
        let sums = self.take_sums(&first, &message, header.body as usize).await?;
        let body = self.take(header.body as usize).await?;
        Ok(Some(InFrame { header, message, sums, body, fd }))
    }

    /// The checksums of the body; that of what came before is looked at.
    async fn take_sums(&mut self, header: &[u8], message: &[u8], body: usize) -> Result<Option<Bytes>, FrameError> {
        if !self.format.checksums {
            return Ok(None);
        }
        let mut sums = self.take(self.format.sums(body)).await?;
        if sums.get_u32_le() != head_sum(header, message) {
            return Err(FrameError::Corrupt);
        }
        Ok(Some(sums))
    }

    async fn take(&mut self, len: usize) -> Result<Bytes, FrameError> {
        if len <= BUFFERED {
            self.fill_to(len).await?;
            return Ok(self.buffer.split_to(len).freeze());
        }
        let mut own = BytesMut::with_capacity(len);
        let have = self.buffer.len().min(len);
        own.extend_from_slice(&self.buffer.split_to(have));
        while own.len() < len {
            let missing = len - own.len();
            if self.socket.read_some(&mut (&mut own).limit(missing)).await? == 0 {
                return Err(FrameError::Cut);
            }
        }
        Ok(own.freeze())
    }

    async fn fill_to(&mut self, len: usize) -> Result<(), FrameError> {
        while self.buffer.len() < len {
            if self.fill().await? == 0 {
                return Err(FrameError::Cut);
            }
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(BUFFERED / 4);
        if self.take_fds {
            self.socket.read_with_fds(&mut self.buffer, &mut self.fds).await
        } else {
            self.socket.read_some(&mut self.buffer).await
        }
    }
}

#[cfg(test)]
mod tests;
