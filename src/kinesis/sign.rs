//! Signatures: the only file that names `aws_sigv4`.
//!
//! Each attempt is signed anew: a signature is good for five minutes, and a freeze can fall between
//! signing and sending.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials as Identity;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::{HeaderName, HeaderValue, Request};

use super::credentials::Credentials;
use super::error::Error;

/// In seconds since 1970.
const YEAR_10000: u64 = 253_402_300_800;

/// What a signature is made for.
#[derive(Debug)]
pub struct Scope<'a> {
    /// The whole URL; its host is signed.
    pub url: &'a str,
    /// As in `AWS_REGION`.
    pub region: &'a str,
    /// `kinesis`, `sts`.
    pub service: &'a str,
    /// Corrected for the skew of the local clock.
    pub time: SystemTime,
}

/// The headers to add to a POST of `headers` and a body with this SHA-256 (hex): `authorization`,
/// `x-amz-date`, and the session token. Values are marked sensitive where they are.
///
/// # Errors
/// Says what of the time, the request or the credentials cannot be signed, without quoting it.
pub fn headers(
    scope: &Scope<'_>,
    credentials: &Credentials,
    headers: &[(&str, &str)],
    body_sha256: String,
) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    // Outside of that, aws-sigv4 panics when it writes the date.
    if !scope.time.duration_since(UNIX_EPOCH).is_ok_and(|since| since.as_secs() < YEAR_10000) {
        return Err(Error::new("BadClock", "this machine's clock is before 1970 or after 9999"));
    }
    let illegal = |what: &str| Error::new("BadCredentials", what);
    let token = credentials.session_token().map(str::to_owned);
    let identity = Identity::new(
        credentials.access_key_id(),
        credentials.secret_access_key(),
        token,
        None,
        "environment",
    )
    .into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(scope.time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| Error::new("BadRequest", "cannot sign: a parameter is missing"))?
        .into();
    let body = SignableBody::Precomputed(body_sha256);
    let request = SignableRequest::new("POST", scope.url, headers.iter().copied(), body)
        .map_err(|_| Error::new("BadRequest", "cannot sign: the URL or a header is not legal"))?;
    let (instructions, _) = sign(request, &parameters)
        .map_err(|_| illegal("cannot sign: the credentials are not legal in a header"))?
        .into_parts();
    instructions
        .into_parts()
        .0
        .into_iter()
        .map(|header| {
            let mut value = HeaderValue::from_str(header.value())
                .map_err(|_| illegal("the credentials are not legal in a header"))?;
            value.set_sensitive(header.sensitive());
            Ok((HeaderName::from_static(header.name()), value))
        })
        .collect()
}

/// A signed POST without its body.
pub(super) fn post(
    scope: &Scope<'_>,
    credentials: &Credentials,
    unsigned: &[(&str, &str)],
    body_sha256: String,
) -> Result<Request<()>, Error> {
    let signature = headers(scope, credentials, unsigned, body_sha256)?;
    let post = unsigned
        .iter()
        .fold(Request::post(scope.url), |post, (name, value)| post.header(*name, *value));
    let post = signature.into_iter().fold(post, |post, (name, value)| post.header(name, value));
    post.body(()).map_err(|_| Error::new("BadRequest", "the URL or a header is not legal"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The POST of AWS's published Signature Version 4 test suite, `post-vanilla`.
    #[test]
    fn signs_as_aws_publishes() {
        let credentials = Credentials::new(
            "AKIDEXAMPLE".to_owned(),
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            None,
        );
        let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let scope = Scope {
            url: "https://example.amazonaws.com/",
            region: "us-east-1",
            service: "service",
            time,
        };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let signed = headers(&scope, &credentials, &[], empty.to_owned()).unwrap();
        let find = |name: &str| {
            signed.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap().to_owned())
        };
        assert_eq!(find("x-amz-date").unwrap(), "20150830T123600Z");
        assert_eq!(
            find("authorization").unwrap(),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, \
             Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
    }

    #[test]
    fn credentials_that_no_header_can_hold_are_an_error_that_does_not_show_them() {
        let credentials =
            Credentials::new("AK\nID".to_owned(), "secret".to_owned(), Some("to\nken".to_owned()));
        let scope = Scope {
            url: "https://example.com/",
            region: "us-east-1",
            service: "kinesis",
            time: UNIX_EPOCH,
        };
        let error = headers(&scope, &credentials, &[], String::new()).unwrap_err().to_string();
        assert!(!error.contains("secret") && !error.contains("to\nken"), "{error}");
    }

    /// One answer with a `Date` of the year 9999 was learnt as clock skew, and a second later the
    /// signer panicked.
    #[test]
    fn no_time_makes_the_signer_panic() {
        let credentials = Credentials::new("AKIDEXAMPLE".to_owned(), "secret".to_owned(), None);
        let year_10000 = UNIX_EPOCH + Duration::from_secs(YEAR_10000);
        for (time, good) in [
            (UNIX_EPOCH, true),
            (year_10000 - Duration::from_secs(1), true),
            (year_10000, false),
            (UNIX_EPOCH - Duration::from_secs(1), false),
            (UNIX_EPOCH + Duration::from_secs(1 << 45), false),
        ] {
            let scope = Scope {
                url: "https://example.com/",
                region: "us-east-1",
                service: "kinesis",
                time,
            };
            assert_eq!(headers(&scope, &credentials, &[], String::new()).is_ok(), good, "{time:?}");
        }
    }
}
