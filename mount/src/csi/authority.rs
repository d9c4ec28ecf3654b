//! Lets kubelet talk to the registration socket.
//!
//! For it, and for nothing else, kubelet (through 1.34 at least) sends the socket's path as `:authority`, which the HTTP/2
//! library refuses as no authority of RFC 3986. Here every header block passes that names a host instead. Frames are those of
//! RFC 9113 section 4.1, header blocks those of RFC 7541.

use std::io;

use loona_hpack::Decoder;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::UnixStream,
};

const PREFACE: usize = 24;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The largest frame that a peer may send unless told otherwise, which we never do.
const MAX_FRAME: usize = 16 << 10;
const HOST: &[u8] = b"localhost";

/// The connection with every `:authority` replaced.
pub fn mended(stream: UnixStream) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(4 * MAX_FRAME);
    tokio::spawn(async move {
        let (mut from_kubelet, mut to_kubelet) = stream.into_split();
        let (mut from_server, mut to_server) = tokio::io::split(ours);
        let answers = async {
            tokio::io::copy(&mut from_server, &mut to_kubelet).await.ok();
            to_kubelet.shutdown().await.ok();
        };
        let requests = async {
            if let Err(error) = forward(&mut from_kubelet, &mut to_server).await
                && error.kind() != io::ErrorKind::UnexpectedEof
            {
                tracing::warn!(%error, "kubelet's registration call is not what it should be");
            }
            to_server.shutdown().await.ok();
        };
        tokio::join!(answers, requests);
    });
    theirs
}

/// One frame: type, flags, stream and payload.
struct Frame {
    kind: u8,
    flags: u8,
    stream: [u8; 4],
    payload: Vec<u8>,
}

/// Copies the client's side of a connection until its end.
async fn forward(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut preface = [0; PREFACE];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    let mut decoder = Decoder::new();
    loop {
        let mut frame = read(from).await?;
        if frame.kind == HEADERS {
            let mut block = fragment(&frame)?.to_vec();
            let mut flags = frame.flags;
            while flags & END_HEADERS == 0 {
                let more = read(from).await?;
                if more.kind != CONTINUATION || block.len() > MAX_FRAME {
                    return Err(invalid("a header block does not end"));
                }
                block.extend_from_slice(&more.payload);
                flags |= more.flags;
            }
            frame.flags = frame.flags & END_STREAM | END_HEADERS;
            frame.payload = rewrite(&mut decoder, &block)?;
        }
        write(to, &frame).await?;
    }
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > MAX_FRAME {
        return Err(invalid("a frame is too large"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok(Frame { kind, flags, stream, payload })
}

async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    if frame.payload.len() > MAX_FRAME {
        return Err(invalid("a header block is too large"));
    }
    let [_, a, b, c] = (frame.payload.len() as u32).to_be_bytes();
    let mut bytes = vec![a, b, c, frame.kind, frame.flags];
    bytes.extend_from_slice(&frame.stream);
    bytes.extend_from_slice(&frame.payload);
    to.write_all(&bytes).await
}

/// The header block within a HEADERS frame, without padding and priority.
fn fragment(frame: &Frame) -> io::Result<&[u8]> {
    let mut block = frame.payload.as_slice();
    let mut padding = 0;
    if frame.flags & PADDED != 0 {
        let (length, rest) = block.split_first().ok_or_else(|| invalid("padding without a length"))?;
        (padding, block) = (usize::from(*length), rest);
    }
    let priority = if frame.flags & PRIORITY == 0 { 0 } else { 5 };
    let end = block.len().checked_sub(padding);
    end.and_then(|end| block.get(priority..end)).ok_or_else(|| invalid("a frame shorter than its padding"))
}

/// The same headers with another `:authority`, as literals: whoever reads them needs no table of earlier ones.
fn rewrite(decoder: &mut Decoder<'_>, block: &[u8]) -> io::Result<Vec<u8>> {
    let headers = decoder.decode(block).map_err(|_| invalid("a header block cannot be decoded"))?;
    let mut out = Vec::with_capacity(block.len() * 2);
    for (name, value) in &headers {
        let value = if name == b":authority" { HOST } else { value };
        out.push(0);
        for text in [name, value] {
            put_length(&mut out, text.len());
            out.extend_from_slice(text);
        }
    }
    Ok(out)
}

/// An integer with a prefix of 7 bits (RFC 7541, 5.1).
fn put_length(out: &mut Vec<u8>, length: usize) {
    if length < 127 {
        out.push(length as u8);
        return;
    }
    out.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use loona_hpack::Encoder;

    use super::*;

    #[test]
    fn the_authority_is_replaced_and_the_rest_stays_as_it_is() {
        let long = vec![b'x'; 300];
        let headers: [(&[u8], &[u8]); 4] =
            [(b":method", b"POST"), (b":authority", b"%2Fvar%2Fx.sock"), (b":path", b"/a/b"), (b"long", &long)];
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        // The second block refers to the table that the first one filled.
        for _ in 0..2 {
            let block = encoder.encode(headers);
            let mended = Decoder::new().decode(&rewrite(&mut decoder, &block).unwrap()).unwrap();
            let mut expected = headers.map(|(name, value)| (name.to_vec(), value.to_vec()));
            expected[1].1 = HOST.to_vec();
            assert_eq!(mended, expected);
        }
    }

    #[tokio::test]
    async fn padded_and_split_header_blocks_become_one_frame_and_other_frames_pass() {
        let block = Encoder::new().encode([(&b":authority"[..], &b"/a"[..]), (b"k", b"v")]);
        let (first, second) = block.split_at(3);
        let mut input = vec![b'P'; PREFACE];
        let payload = [&[2][..], &[0; 5], first, &[0, 0]].concat();
        for frame in [
            Frame { kind: 4, flags: 0, stream: [0; 4], payload: vec![1; 6] },
            Frame { kind: HEADERS, flags: PADDED | PRIORITY | END_STREAM, stream: [0, 0, 0, 1], payload },
            Frame { kind: CONTINUATION, flags: END_HEADERS, stream: [0, 0, 0, 1], payload: second.to_vec() },
        ] {
            write(&mut input, &frame).await.unwrap();
        }
        let mut output = Vec::new();
        let error = forward(&mut input.as_slice(), &mut output).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let mut rest = &output[PREFACE..];
        assert_eq!(read(&mut rest).await.unwrap().payload, [1; 6]);
        let headers = read(&mut rest).await.unwrap();
        assert_eq!((headers.kind, headers.flags), (HEADERS, END_STREAM | END_HEADERS));
        let decoded = Decoder::new().decode(&headers.payload).unwrap();
        assert_eq!(decoded[0], (b":authority".to_vec(), HOST.to_vec()));
        assert!(rest.is_empty());
    }
}
