//! What went wrong, in words that users can act on.

use std::fmt;

use opendal::ErrorKind;

use crate::UfsError;

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) endpoint: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket {:?} at {}", self.bucket, self.endpoint)
    }
}

impl Place {
    pub(super) fn describe(&self, error: &opendal::Error) -> UfsError {
        self.by_code(code(error.message())).unwrap_or_else(|| self.by_kind(error))
    }

    fn by_code(&self, code: &str) -> Option<UfsError> {
        let denied = |mend: &str| Some(UfsError::Denied(format!("{self} answers {code}: {mend}")));
        let misconfigured = |mend: &str| Some(UfsError::Misconfigured(format!("{self} answers {code}: {mend}")));
        match code {
            "NoSuchBucket" => Some(UfsError::Misconfigured(format!(
                "there is no {self}: correct the bucket in mountPoint or option endpoint, or create the bucket"
            ))),
            "InvalidBucketName" => misconfigured("correct the bucket in mountPoint"),
            "InvalidAccessKeyId" | "NotSignedUp" => denied("correct option access-key"),
            "SignatureDoesNotMatch" => denied("correct option secret-key"),
            "InvalidToken" => denied("correct option session-token"),
            "ExpiredToken" => denied("renew option session-token and its keys"),
            "AccessDenied" | "AllAccessDisabled" => {
                denied("let these credentials list and get its objects, or set access-key and secret-key")
            }
            "RequestTimeTooSkewed" => denied("set this machine's clock"),
            "InvalidObjectState" => denied("the object is archived; restore it first"),
            "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
                misconfigured("set option region to the bucket's region")
            }
            _ => None,
        }
    }

    fn by_kind(&self, error: &opendal::Error) -> UfsError {
        match error.kind() {
            ErrorKind::NotFound => UfsError::NotFound,
            ErrorKind::ConditionNotMatch | ErrorKind::RangeNotSatisfied => UfsError::Changed,
            ErrorKind::PermissionDenied => UfsError::Denied(format!(
                "{self} refuses: correct options access-key and secret-key, or let them list and get its objects"
            )),
            ErrorKind::ConfigInvalid => UfsError::Misconfigured(format!("{self}: {}", error.message())),
            ErrorKind::RateLimited => UfsError::Unavailable(format!("{self} asks for fewer requests")),
            _ if error.message().contains("send http request") => UfsError::Unavailable(format!(
                "{} does not answer ({}): correct option endpoint or start the store",
                self.endpoint,
                deepest(error)
            )),
            _ if signing(error) => UfsError::Denied(format!(
                "no credentials for {self}: set options access-key and secret-key, or anonymous to \"true\""
            )),
            _ => UfsError::Unavailable(format!("{self} failed: {}", short(error))),
        }
    }
}

/// Whether the answer was whole and had less than was asked for.
pub(super) fn is_short(error: &opendal::Error) -> bool {
    context(error, "actual").is_some_and(|actual| Some(actual) < context(error, "expect"))
}

fn signing(error: &opendal::Error) -> bool {
    error.message().contains("sign") && error.message().contains("failed")
}

/// The code in the store's answer, as `opendal` shows it; empty when there is none.
fn code(message: &str) -> &str {
    let after = message.split_once("code: \"").map_or("", |(_, after)| after);
    after.split_once('"').map_or("", |(code, _)| code)
}

/// A number that `opendal` attached to an error about the size of a body; it offers them in its text alone.
fn context(error: &opendal::Error, name: &str) -> Option<u64> {
    if !error.message().contains("unexpected data size") {
        return None;
    }
    let text = error.to_string();
    let (_, after) = text.split_once(&format!("{name}: "))?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The last cause tells most: "connection refused", not "error sending request".
pub(super) fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

fn short(error: &opendal::Error) -> String {
    match code(error.message()) {
        "" => error.message().chars().take(200).collect(),
        code => code.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_stores_become_sentences() {
        let place = Place { bucket: "b".into(), endpoint: "http://e".into() };
        for (kind, message, wanted) in [
            (ErrorKind::NotFound, "", "not found"),
            (ErrorKind::NotFound, "S3Error { code: \"NoSuchBucket\", ..", "create the bucket"),
            (ErrorKind::PermissionDenied, "S3Error { code: \"SignatureDoesNotMatch\", ..", "secret-key"),
            (ErrorKind::PermissionDenied, "", "access-key"),
            (ErrorKind::PermissionDenied, "S3Error { code: \"InvalidObjectState\", ..", "restore"),
            (ErrorKind::Unexpected, "send http request", "endpoint"),
            (ErrorKind::Unexpected, "S3Error { code: \"InternalError\", ..", "InternalError"),
            (ErrorKind::Unexpected, "S3Error { code: \"PermanentRedirect\", ..", "region"),
            (ErrorKind::ConditionNotMatch, "", "changed"),
        ] {
            let text = place.describe(&opendal::Error::new(kind, message)).to_string();
            assert!(text.contains(wanted), "{kind} {message}: {text}");
        }
    }
}
