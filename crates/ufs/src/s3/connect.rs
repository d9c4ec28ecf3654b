//! From options to a service that retries within bounds.

use std::sync::Arc;
use std::time::Duration;

use opendal::layers::{ConcurrentLimitLayer, RetryLayer, TimeoutLayer};
use opendal::raw::Servicer;
use opendal::{Builder as _, HttpTransporter, OperationContext, Operator, services};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::failure::{Place, deepest};
use crate::UfsError;
use crate::options::Options;

/// Requests under way at once for one mount.
const CONCURRENCY: usize = 64;
/// After the first try.
const RETRIES: usize = 4;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a byte.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// For one try of a whole operation; a read moves at most an extent.
const OPERATION_TIMEOUT: Duration = Duration::from_mins(1);

/// What S3-compatible stores take for granted.
const DEFAULT_REGION: &str = "us-east-1";

pub(super) fn connect(
    source: &str,
    bucket: &str,
    options: &Options<'_>,
) -> Result<(Servicer, OperationContext, Place), UfsError> {
    if bucket.is_empty() {
        return Err(UfsError::Misconfigured(format!(
            "mountPoint {source:?} names no bucket: write s3://BUCKET/PREFIX"
        )));
    }
    let endpoint = endpoint(options)?;
    let place = Place { bucket: bucket.to_owned(), endpoint: endpoint.unwrap_or("AWS").to_owned() };
    let mut builder = services::S3::default().bucket(bucket);
    builder = credentials(builder, options, endpoint.is_some())?;
    match options.get("region") {
        Some(region) => builder = builder.region(region),
        None if endpoint.is_some() || std::env::var_os("AWS_REGION").is_none() => {
            builder = builder.region(DEFAULT_REGION);
        }
        None => {}
    }
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint(endpoint);
    }
    if !options.flag("path-style")?.unwrap_or(endpoint.is_some()) {
        builder = builder.enable_virtual_host_style();
    }
    let service: Servicer = Arc::new(builder.build().map_err(|error| place.describe(&error))?);
    let context = OperationContext::new().with_http_transport(transport(endpoint)?);
    let retry = RetryLayer::new()
        .with_jitter()
        .with_max_times(RETRIES)
        .with_min_delay(FIRST_DELAY)
        .with_max_delay(LONGEST_DELAY);
    let timeout = TimeoutLayer::new().with_timeout(OPERATION_TIMEOUT).with_io_timeout(OPERATION_TIMEOUT);
    // Later layers lie outside: each try waits for its turn, then has its time.
    let operator = Operator::from_parts(context, service)
        .layer(timeout)
        .layer(ConcurrentLimitLayer::new(CONCURRENCY))
        .layer(retry);
    let (context, service) = operator.into_parts();
    Ok((service, context, place))
}

fn endpoint<'a>(options: &Options<'a>) -> Result<Option<&'a str>, UfsError> {
    let Some(endpoint) = options.get("endpoint") else { return Ok(None) };
    let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    match host {
        Some(host) if !host.trim_matches('/').is_empty() => Ok(Some(endpoint.trim_end_matches('/'))),
        _ => Err(UfsError::Misconfigured(format!(
            "option endpoint is {endpoint:?}: write it as http://HOST:PORT or https://HOST"
        ))),
    }
}

fn credentials(builder: services::S3, options: &Options<'_>, custom_endpoint: bool) -> Result<services::S3, UfsError> {
    let refuse = |text: &str| Err(UfsError::Misconfigured(text.to_owned()));
    let anonymous = options.flag("anonymous")?.unwrap_or(false);
    let token = options.get("session-token");
    match (options.get("access-key"), options.get("secret-key")) {
        (Some(_), _) | (_, Some(_)) if anonymous => {
            refuse("option anonymous is \"true\" beside access-key or secret-key: remove one or the other")
        }
        (Some(access), Some(secret)) => {
            let builder = builder.access_key_id(access).secret_access_key(secret).disable_config_load();
            let builder = builder.disable_ec2_metadata();
            Ok(token.into_iter().fold(builder, services::S3::session_token))
        }
        (Some(_), None) => refuse("option access-key is set without secret-key: set both"),
        (None, Some(_)) => refuse("option secret-key is set without access-key: set both"),
        (None, None) if token.is_some() => {
            refuse("option session-token is set without access-key and secret-key: set all three")
        }
        (None, None) if anonymous => Ok(builder.skip_signature().disable_config_load().disable_ec2_metadata()),
        // The environment's identity (service account, instance); a store of one's own is never known to AWS' metadata.
        (None, None) if custom_endpoint => Ok(builder.disable_ec2_metadata()),
        (None, None) => Ok(builder),
    }
}

fn transport(endpoint: Option<&str>) -> Result<HttpTransporter, UfsError> {
    // An earlier choice of the process stands.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT)
        .pool_max_idle_per_host(CONCURRENCY);
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        // Without this an image that carries no CA certificates could not even speak plain HTTP.
        client = client.tls_certs_only([]);
    }
    let client = client.build().map_err(|error| {
        UfsError::Misconfigured(format!(
            "cannot set up TLS ({}): install CA certificates in the worker's image, or use an http:// endpoint",
            deepest(&error)
        ))
    })?;
    Ok(HttpTransporter::new(ReqwestTransport::new(client)))
}
