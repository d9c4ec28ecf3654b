use penstock_placement::{Member, MemberList};
use proptest::prelude::*;
use tokio::net::UnixStream;

use super::*;
use crate::message::{Pattern, Reach};
use penstock_model::{Object, ObjectKey, Version};

const FORMAT: Format = Format { version: 1, checksums: true };

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn object() -> impl Strategy<Value = Object> {
    (any::<u128>(), any::<Vec<u8>>(), ".*", any::<u64>()).prop_map(|(key, path, version, size)| Object {
        key: ObjectKey(key),
        path,
        version: Version(version),
        size,
    })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::Describe),
        (any::<Vec<u8>>(), any::<Option<Vec<u8>>>(), any::<u32>()).prop_map(|(path, after, limit)| Request::List {
            path,
            after,
            limit
        }),
        (object(), any::<u64>(), any::<u32>()).prop_map(|(object, offset, len)| Request::Read {
            object,
            offset,
            len,
            pattern: Pattern::Random,
            reach: Reach::Ufs
        }),
        (object(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..200_000))
            .prop_map(|(object, offset, data)| Request::Push { object, offset, data: data.into() }),
        any::<u64>().prop_map(|weight| {
            let member = Member { id: "w".into(), addr: "a".into(), weight };
            Request::SetMembers(MemberList { epoch: 3, members: vec![member.clone()], former: vec![vec![member]] })
        }),
    ]
}

/// Feeds the bytes in pieces to a reader and collects what comes out of it.
fn read_all(bytes: Vec<u8>, piece: usize, limits: Limits) -> Vec<Result<InFrame, FrameError>> {
    runtime().block_on(async move {
        let (left, right) = UnixStream::pair().unwrap();
        let write = async move {
            let left = Socket::Unix(left);
            for part in bytes.chunks(piece) {
                if left.write_all(&mut [IoSlice::new(part)]).await.is_err() {
                    return;
                }
            }
        };
        let read = async move {
            let mut reader = FrameReader::new(Arc::new(Socket::Unix(right)), FORMAT, limits, true);
            let mut frames = Vec::new();
            while let Some(frame) = reader.next().await.transpose() {
                frames.push(frame);
                if frames.last().unwrap().is_err() {
                    break;
                }
            }
            frames
        };
        tokio::join!(write, read).1
    })
}

fn bytes_of(frame: &OutFrame) -> Vec<u8> {
    let Body::Bytes(body) = &frame.body else { panic!("a file") };
    [&frame.head[..], body].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn requests_survive_any_cutting_of_the_stream(
        requests in prop::collection::vec(request(), 1..5), piece in 1usize..100_000
    ) {
        let frames: Vec<_> =
            requests.iter().enumerate().map(|(i, r)| OutFrame::request(FORMAT, i as u64, 7, r.clone()).unwrap()).collect();
        let stream: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
        // Single bytes only for short streams, for time's sake.
        let piece = piece.max(stream.len() / 2000);
        let read = read_all(stream, piece, Limits::FROM_PEER);
        prop_assert_eq!(read.len(), requests.len());
        for (i, (frame, request)) in read.into_iter().zip(requests).enumerate() {
            let frame = frame.unwrap();
            prop_assert_eq!((frame.header.id, frame.header.epoch), (i as u64, 7));
            prop_assert_eq!(frame.into_request().unwrap(), request);
        }
    }

    #[test]
    fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for frame in read_all(bytes, 1000, Limits::FROM_CLIENT).into_iter().flatten() {
            let _ = frame.into_request();
        }
    }

    #[test]
    fn a_spoiled_frame_is_an_error_or_a_message_but_never_a_panic(
        request in request(), at in any::<prop::sample::Index>(), value: u8
    ) {
        let mut bytes = bytes_of(&OutFrame::request(FORMAT, 1, 1, request).unwrap());
        let at = at.index(bytes.len());
        bytes[at] = value;
        for frame in read_all(bytes, 1 << 20, Limits::FROM_PEER).into_iter().flatten() {
            let _ = frame.into_request();
        }
    }
}

#[test]
fn a_frame_longer_than_allowed_is_refused_by_its_header() {
    let mut head = vec![0; HEADER];
    Header { flags: 0, message: 65 << 10, body: 0, id: 1, epoch: 0 }.encode(1, &mut head);
    assert!(matches!(&read_all(head, 99, Limits::FROM_CLIENT)[..], [Err(FrameError::Oversized(66_560))]));
}

#[test]
fn a_stream_cut_within_a_frame_is_not_a_clean_end() {
    let mut bytes = bytes_of(&OutFrame::request(FORMAT, 1, 1, Request::Describe).unwrap());
    bytes.pop();
    assert!(matches!(&read_all(bytes, 99, Limits::FROM_CLIENT)[..], [Err(FrameError::Cut)]));
}

#[test]
fn bulk_bytes_where_none_belong_are_refused() {
    let header = Header { flags: 0, message: 0, body: 0, id: 1, epoch: 1 };
    let frame = OutFrame::new(FORMAT, header, &Request::Describe, Body::Bytes(Bytes::from_static(b"x")), None).unwrap();
    let read = read_all(bytes_of(&frame), 99, Limits::FROM_PEER).pop().unwrap().unwrap();
    assert!(matches!(read.into_request(), Err(Failure::BadRequest(_))));
}

#[test]
fn the_bytes_of_an_answer_come_back_in_their_place() {
    let data = Bytes::from_static(b"bytes");
    for response in [Response::Data(data.clone()), Response::SharedData { data, holders: 3 }, Response::Done] {
        let frame = OutFrame::answer(FORMAT, 1, 1, Ok((response.clone(), Attachment::Nothing))).unwrap();
        let read = read_all(bytes_of(&frame), 99, Limits::ANSWER).pop().unwrap().unwrap();
        assert_eq!(read.into_answer().unwrap().0, Ok(response));
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let push = Request::Push {
        object: Object { key: ObjectKey(1), path: b"a".to_vec(), version: Version("v".into()), size: 9000 },
        offset: 0,
        data: Bytes::from(vec![7; 9000]),
    };
    let whole = bytes_of(&OutFrame::request(FORMAT, 1, 1, push.clone()).unwrap());
    let lengths = 4..12;
    for at in (0..whole.len()).filter(|at| !lengths.contains(at)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let found = match read_all(bytes, 1 << 20, Limits::FROM_PEER).pop() {
            Some(Ok(frame)) => frame.into_request() == Err(Failure::Corrupt),
            other => matches!(other, Some(Err(FrameError::Header | FrameError::Corrupt))),
        };
        assert!(found, "byte {at}");
    }
}

#[test]
fn without_the_feature_frames_are_shorter_and_nothing_is_compared() {
    let plain = Format { version: 1, checksums: false };
    let frame = OutFrame::request(plain, 1, 1, Request::Describe).unwrap();
    assert_eq!(frame.head.len(), HEADER + 3);
}
