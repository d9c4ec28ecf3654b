//! The operations, as `s3s` asks for them.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::Context as _;
use bytes::Bytes;
use futures::TryStreamExt as _;
use parking_lot::{Mutex, RwLock};
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{
    CommonPrefix, CreateBucketInput, CreateBucketOutput, DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition,
    EncodingType, GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput,
    HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object,
    ObjectStorageClass, PutObjectInput, PutObjectOutput, StorageClass, StreamingBlob, Timestamp,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::body::{self, Content, Faults, Sending, Throttle};
use super::objects::{self, Bucket, Item, Requests, StoredObject};

/// The most keys in one page, as on S3.
const PAGE: usize = 1000;

#[derive(Clone)]
pub(super) struct Backend(Arc<State>);

struct State {
    buckets: RwLock<HashMap<String, Bucket>>,
    directory: Option<PathBuf>,
    next_file: AtomicU64,
    faults: Arc<Mutex<Faults>>,
    throttle: Arc<Throttle>,
    sent: Arc<AtomicU64>,
    requests: Mutex<Requests>,
}

impl Backend {
    pub(super) fn new(directory: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(directory) = &directory {
            std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        }
        Ok(Self(Arc::new(State {
            buckets: RwLock::default(),
            directory,
            next_file: AtomicU64::new(0),
            faults: Arc::default(),
            throttle: Arc::default(),
            sent: Arc::default(),
            requests: Mutex::default(),
        })))
    }

    pub(super) fn create(&self, bucket: &str) {
        self.0.buckets.write().entry(bucket.to_owned()).or_default();
    }

    pub(super) fn put(
        &self,
        bucket: &str,
        key: &str,
        data: Bytes,
        storage_class: Option<&'static str>,
    ) -> anyhow::Result<()> {
        let object = self.store(data, storage_class)?;
        self.0.buckets.write().entry(bucket.to_owned()).or_default().insert(key.to_owned(), object);
        Ok(())
    }

    pub(super) fn remove(&self, bucket: &str, key: &str) {
        if let Some(bucket) = self.0.buckets.write().get_mut(bucket) {
            bucket.remove(key);
        }
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    pub(super) fn requests(&self) -> Requests {
        *self.0.requests.lock()
    }

    pub(super) fn reset_counts(&self) {
        self.0.sent.store(0, Ordering::Relaxed);
        *self.0.requests.lock() = Requests::default();
    }

    pub(super) fn change_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.faults.lock());
    }

    fn count(&self, count: impl FnOnce(&mut Requests)) {
        count(&mut self.0.requests.lock());
    }

    fn store(&self, data: Bytes, storage_class: Option<&'static str>) -> anyhow::Result<StoredObject> {
        let etag = hex(&Md5::checksum(&data));
        let content = match &self.0.directory {
            None => Content::Memory(data),
            Some(directory) => {
                let path = directory.join(self.0.next_file.fetch_add(1, Ordering::Relaxed).to_string());
                std::fs::write(&path, &data).with_context(|| format!("cannot write {}", path.display()))?;
                let file = File::open(&path)?;
                // The open file keeps the bytes; nothing is left behind when the server ends.
                std::fs::remove_file(&path)?;
                Content::File(Arc::new(file), data.len() as u64)
            }
        };
        Ok(StoredObject { content, etag, modified: SystemTime::now(), storage_class })
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<StoredObject> {
        let buckets = self.0.buckets.read();
        let bucket =
            buckets.get(bucket).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))?;
        let object = bucket.get(key).ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))?;
        Ok(object.clone())
    }

    fn require_bucket(&self, bucket: &str) -> S3Result<()> {
        if self.0.buckets.read().contains_key(bucket) {
            return Ok(());
        }
        Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    fn body(&self, content: Content, range: std::ops::Range<u64>) -> StreamingBlob {
        let cut_at = {
            let mut faults = self.0.faults.lock();
            let long = range.end - range.start > faults.cut_after;
            (long && Faults::take(&mut faults.cut_bodies)).then(|| range.start + faults.cut_after)
        };
        StreamingBlob::wrap(body::stream(Sending {
            content,
            range,
            cut_at,
            faults: self.0.faults.clone(),
            throttle: self.0.throttle.clone(),
            sent: self.0.sent.clone(),
        }))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<String> {
    let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok());
    String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()
}

/// As S3 does for `encoding-type=url`: all but unreserved characters and `/`.
fn url_encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b'*' => encoded.push(byte as char),
            b' ' => encoded.push('+'),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    })
}

fn check_match(condition: Option<&ETagCondition>, etag: &str) -> S3Result<()> {
    match condition {
        Some(ETagCondition::ETag(wanted)) if wanted.value() != etag => {
            Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"))
        }
        _ => Ok(()),
    }
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.create(&req.input.bucket);
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.require_bucket(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.require_bucket(&req.input.bucket)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.count(|requests| requests.put += 1);
        let input = req.input;
        self.require_bucket(&input.bucket)?;
        let mut data = Vec::new();
        if let Some(mut body) = input.body {
            while let Some(chunk) = body.try_next().await.map_err(|error| s3_error!(IncompleteBody, "{error}"))? {
                data.extend_from_slice(&chunk);
            }
        }
        let object = self.store(data.into(), None).map_err(|error| s3_error!(InternalError, "{error:#}"))?;
        let etag = ETag::Strong(object.etag.clone());
        self.0.buckets.write().entry(input.bucket).or_default().insert(input.key, object);
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(etag), ..Default::default() }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.require_bucket(&req.input.bucket)?;
        self.remove(&req.input.bucket, &req.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.count(|requests| requests.head += 1);
        let object = self.find(&req.input.bucket, &req.input.key)?;
        check_match(req.input.if_match.as_ref(), &object.etag)?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(object.content.len() as i64),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(Timestamp::from(object.modified)),
            storage_class: object.storage_class.map(|class| StorageClass::from(class.to_owned())),
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.count(|requests| requests.get += 1);
        let (fail, throttle, delay) = {
            let mut faults = self.0.faults.lock();
            (Faults::take(&mut faults.fail_gets), Faults::take(&mut faults.throttle_gets), faults.delay)
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        if fail {
            return Err(s3_error!(InternalError, "We encountered an internal error. Please try again."));
        }
        if throttle {
            return Err(s3_error!(SlowDown, "Please reduce your request rate."));
        }
        let object = self.find(&req.input.bucket, &req.input.key)?;
        check_match(req.input.if_match.as_ref(), &object.etag)?;
        if object.storage_class.is_some() {
            return Err(s3_error!(InvalidObjectState, "The operation is not valid for the object's storage class"));
        }
        let len = object.content.len();
        let mut range = req.input.range.map(|range| range.check(len)).transpose()?;
        if let Some(range) = range.as_mut().filter(|range| range.end - range.start > 1)
            && Faults::take(&mut self.0.faults.lock().short_bodies)
        {
            range.end -= (range.end - range.start) / 2;
        }
        let content_range = range.as_ref().map(|range| format!("bytes {}-{}/{len}", range.start, range.end - 1));
        let range = range.unwrap_or(0..len);
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some((range.end - range.start) as i64),
            content_range,
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(Timestamp::from(object.modified)),
            body: Some(self.body(object.content, range)),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.count(|requests| requests.list += 1);
        let fail = Faults::take(&mut self.0.faults.lock().fail_lists);
        if fail {
            return Err(s3_error!(InternalError, "We encountered an internal error. Please try again."));
        }
        let input = req.input;
        let buckets = self.0.buckets.read();
        let bucket =
            buckets.get(&input.bucket).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))?;
        let limit = input.max_keys.map_or(PAGE, |keys| usize::try_from(keys).unwrap_or(0).min(PAGE));
        let token = input.continuation_token.as_deref().map(|token| {
            unhex(token).ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
        });
        let after = token.transpose()?.or_else(|| input.start_after.clone());
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        let (items, more) = objects::page(bucket, prefix, delimiter, after.as_deref(), limit);
        Ok(S3Response::new(listing(&input, bucket, items, more)))
    }
}

fn listing(input: &ListObjectsV2Input, bucket: &Bucket, items: Vec<Item>, more: bool) -> ListObjectsV2Output {
    let encode = input.encoding_type.as_ref().is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
    let shown = |text: &str| if encode { url_encode(text) } else { text.to_owned() };
    let next = items.last().filter(|_| more).map(|item| hex(item.name().as_bytes()));
    let count = items.len() as i32;
    let mut contents = Vec::new();
    let mut prefixes = Vec::new();
    for item in items {
        match item {
            Item::CommonPrefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(shown(&prefix)) }),
            Item::Key(key) => contents.extend(bucket.get(&key).map(|object| Object {
                key: Some(shown(&key)),
                size: Some(object.content.len() as i64),
                e_tag: Some(ETag::Strong(object.etag.clone())),
                last_modified: Some(Timestamp::from(object.modified)),
                storage_class: Some(ObjectStorageClass::from(object.storage_class.unwrap_or("STANDARD").to_owned())),
                ..Default::default()
            })),
        }
    }
    ListObjectsV2Output {
        name: Some(input.bucket.clone()),
        prefix: input.prefix.as_deref().map(shown),
        delimiter: input.delimiter.as_deref().map(shown),
        max_keys: Some(input.max_keys.unwrap_or(PAGE as i32)),
        key_count: Some(count),
        is_truncated: Some(more),
        continuation_token: input.continuation_token.clone(),
        next_continuation_token: next,
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        encoding_type: input.encoding_type.clone(),
        ..Default::default()
    }
}
