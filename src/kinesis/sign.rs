//! Signatures: the only file that names `aws_sigv4`.
//!
//! Each attempt is signed anew: a signature is good for five minutes, and a freeze can fall between signing and sending.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::{HeaderName, HeaderValue};

use super::credentials::Keys;

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

/// The headers to add to a POST of `headers` and a body with this SHA-256 (hex): `authorization`, `x-amz-date`, and the session token.
/// Values are marked sensitive where they are.
///
/// # Errors
/// Says what of the request or the credentials cannot be signed, without quoting it.
pub fn headers(scope: &Scope<'_>, keys: &Keys, headers: &[(&str, &str)], body_sha256: String) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let token = keys.session_token().map(str::to_owned);
    let identity = Credentials::new(keys.access_key_id(), keys.secret_access_key(), token, None, "environment").into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(scope.time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| format!("cannot sign: {error}"))?
        .into();
    let body = SignableBody::Precomputed(body_sha256);
    let request = SignableRequest::new("POST", scope.url, headers.iter().copied(), body)
        .map_err(|_| "cannot sign: the URL or a header is not legal".to_owned())?;
    let (instructions, _) = sign(request, &parameters).map_err(|_| "cannot sign: the credentials are not legal in a header".to_owned())?.into_parts();
    instructions
        .into_parts()
        .0
        .into_iter()
        .map(|header| {
            let mut value =
                HeaderValue::from_str(header.value()).map_err(|_| format!("the credentials cannot stand in the {} header", header.name()))?;
            value.set_sensitive(header.sensitive());
            Ok((HeaderName::from_static(header.name()), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    /// The POST of AWS's published Signature Version 4 test suite, `post-vanilla`.
    #[test]
    fn signs_as_aws_publishes() {
        let keys = Keys::new("AKIDEXAMPLE".to_owned(), "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(), None);
        let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let scope = Scope { url: "https://example.amazonaws.com/", region: "us-east-1", service: "service", time };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let signed = headers(&scope, &keys, &[], empty.to_owned()).unwrap();
        let find = |name: &str| signed.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap().to_owned());
        assert_eq!(find("x-amz-date").unwrap(), "20150830T123600Z");
        assert_eq!(
            find("authorization").unwrap(),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, \
             Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
    }

    #[test]
    fn credentials_that_no_header_can_hold_are_an_error_that_does_not_show_them() {
        let keys = Keys::new("AK\nID".to_owned(), "secret".to_owned(), Some("to\nken".to_owned()));
        let scope = Scope { url: "https://example.com/", region: "us-east-1", service: "kinesis", time: UNIX_EPOCH };
        let error = headers(&scope, &keys, &[], String::new()).unwrap_err();
        assert!(!error.contains("secret") && !error.contains("to\nken"), "{error}");
    }
}
