//! Checks AWS Signature Version 4 from the request as it arrived, by the published algorithm alone.
//!
//! Pure: no socket and no clock of its own. Shares no code with the signer under test.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use ring::hmac;

use crate::clock::{amz_date, parse_amz_date};
use crate::http::Request;

/// How far `X-Amz-Date` may be from the server's clock.
const WINDOW: Duration = Duration::from_secs(300);

/// The keys that a request must be signed with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`, when there is one.
    pub session_token: Option<String>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            access_key_id: "ASIASANDBOXEXAMPLE01".to_owned(),
            secret_access_key: "sandbox/EXAMPLE+secret/key/of/forty/characters".to_owned(),
            session_token: Some(
                "sandboxEXAMPLEsessionToken//////////wEaCXVzLWVhc3QtMSJHMEUCIQ==".to_owned(),
            ),
        }
    }
}

/// Why a signature is refused: the error's name and AWS's own text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

fn refusal(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}

/// What a signature is held against.
pub(crate) struct Verifier<'a> {
    pub(crate) credentials: &'a Credentials,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) now: SystemTime,
}

struct Authorization<'a> {
    key_id: &'a str,
    scope: [&'a str; 4],
    signed: Vec<&'a str>,
    signature: &'a str,
}

impl Verifier<'_> {
    pub(crate) fn check(&self, request: &Request) -> Result<(), Refusal> {
        let header = request.header("authorization");
        let header = header.ok_or_else(|| {
            refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
        })?;
        let authorization = parse(header)?;
        let date = request.header("x-amz-date").ok_or_else(|| {
            refusal("IncompleteSignatureException", "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
        })?;
        self.identity(request, &authorization)?;
        self.scope(&authorization, date)?;
        self.time(date)?;
        all_signed(request, &authorization.signed)?;
        true_hash(request)?;
        let expected = self.signature(request, &authorization, date);
        if expected == authorization.signature {
            return Ok(());
        }
        Err(refusal(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        ))
    }

    fn identity(
        &self,
        request: &Request,
        authorization: &Authorization<'_>,
    ) -> Result<(), Refusal> {
        let token = request.header("x-amz-security-token");
        if authorization.key_id == self.credentials.access_key_id
            && token == self.credentials.session_token.as_deref()
        {
            return Ok(());
        }
        Err(refusal(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ))
    }

    fn scope(&self, authorization: &Authorization<'_>, date: &str) -> Result<(), Refusal> {
        let [day, region, service, terminator] = authorization.scope;
        let wrong = if region != self.region {
            format!("Credential should be scoped to a valid region, not '{region}'. ")
        } else if service != self.service {
            format!("Credential should be scoped to correct service: '{}'. ", self.service)
        } else if terminator != "aws4_request" {
            format!(
                "Credential should be scoped with a valid terminator: 'aws4_request', not '{terminator}'. "
            )
        } else if !date.starts_with(day) {
            format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{day}' != '{date}'. "
            )
        } else {
            return Ok(());
        };
        Err(refusal("InvalidSignatureException", wrong))
    }

    fn time(&self, date: &str) -> Result<(), Refusal> {
        let Some(signed) = parse_amz_date(date) else {
            let text = format!("Date must be in ISO-8601 'basic format'. Got '{date}'.");
            return Err(refusal("IncompleteSignatureException", text));
        };
        let now = amz_date(self.now);
        let (earliest, latest) = (self.now - WINDOW, self.now + WINDOW);
        let text = if amz_date(signed) < amz_date(earliest) {
            format!(
                "Signature expired: {date} is now earlier than {} ({now} - 5 min.)",
                amz_date(earliest)
            )
        } else if amz_date(signed) > amz_date(latest) {
            format!(
                "Signature not yet current: {date} is still later than {} ({now} + 5 min.)",
                amz_date(latest)
            )
        } else {
            return Ok(());
        };
        Err(refusal("InvalidSignatureException", text))
    }

    fn signature(
        &self,
        request: &Request,
        authorization: &Authorization<'_>,
        date: &str,
    ) -> String {
        let canonical = canonical_request(request, &authorization.signed);
        let scope = authorization.scope.join("/");
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let mut key = format!("AWS4{}", self.credentials.secret_access_key).into_bytes();
        for part in authorization.scope {
            key = sign(&key, part.as_bytes());
        }
        hex(&sign(&key, to_sign.as_bytes()))
    }
}

fn parse(header: &str) -> Result<Authorization<'_>, Refusal> {
    let incomplete = |what: &str| {
        let text =
            format!("Authorization header requires '{what}' parameter. Authorization={header}");
        refusal("IncompleteSignatureException", text)
    };
    let Some(rest) = header.strip_prefix("AWS4-HMAC-SHA256 ") else {
        return Err(refusal("IncompleteSignatureException", "Unsupported AWS 'algorithm'"));
    };
    let parameter = |name: &str| {
        let mut parts = rest.split(',').filter_map(|part| part.trim().split_once('='));
        parts.find(|(key, _)| *key == name).map(|(_, value)| value).ok_or_else(|| incomplete(name))
    };
    let mut credential = parameter("Credential")?.split('/');
    let mut next = || credential.next().ok_or_else(|| incomplete("Credential"));
    Ok(Authorization {
        key_id: next()?,
        scope: [next()?, next()?, next()?, next()?],
        signed: parameter("SignedHeaders")?.split(';').collect(),
        signature: parameter("Signature")?,
    })
}

/// `host` and every `X-Amz-*` header that came must be among those signed, and those signed must have come.
fn all_signed(request: &Request, signed: &[&str]) -> Result<(), Refusal> {
    let must = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
    let must = must.filter(|name| name == "host" || name.starts_with("x-amz-"));
    let unsigned: Vec<String> = must.filter(|name| !signed.contains(&name.as_str())).collect();
    if !unsigned.is_empty() {
        let text = format!(
            "'{}' must be a 'SignedHeader' in the AWS Authorization.",
            unsigned.join("', '")
        );
        return Err(refusal("InvalidSignatureException", text));
    }
    if let Some(absent) = signed.iter().find(|name| request.header(name).is_none()) {
        let text = format!("'{absent}' is a 'SignedHeader' that the request does not have.");
        return Err(refusal("InvalidSignatureException", text));
    }
    Ok(())
}

/// `x-amz-content-sha256` is optional, but when it is there it must be the body's.
fn true_hash(request: &Request) -> Result<(), Refusal> {
    match request.header("x-amz-content-sha256") {
        Some(claimed) if claimed != sha256(&request.body) => Err(refusal(
            "InvalidSignatureException",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )),
        _ => Ok(()),
    }
}

fn canonical_request(request: &Request, signed: &[&str]) -> String {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target.as_str(), ""));
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    pairs.sort();
    let query: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut text = format!("{}\n{}\n{}\n", request.method, encode_path(path), query.join("&"));
    for name in signed {
        let values = request.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let values: Vec<String> = values.map(|(_, value)| squeeze(value)).collect();
        let _ = writeln!(text, "{name}:{}", values.join(","));
    }
    let _ = write!(text, "\n{}\n{}", signed.join(";"), sha256(&request.body));
    text
}

/// Each segment of the path is encoded once more, as for every service but S3.
fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Trims, and makes one space of several.
fn squeeze(value: &str) -> String {
    value.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn sign(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}

fn sha256(data: &[u8]) -> String {
    hex(digest(&SHA256, data).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    /// One of AWS's published test vectors: everything but the signature is put together here.
    fn vector(method: &str, target: &str, headers: &[(&str, &str)], signature: &str) -> Request {
        let mut names: Vec<String> =
            headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.push("x-amz-date".to_owned());
        names.sort();
        let mut headers: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        headers.push(("X-Amz-Date".to_owned(), "20150830T123600Z".to_owned()));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={}, Signature={signature}",
            names.join(";")
        );
        headers.push(("Authorization".to_owned(), authorization));
        let (method, target) = (method.to_owned(), target.to_owned());
        Request { method, target, headers, body: Vec::new(), started: Instant::now() }
    }

    fn credentials(token: Option<&str>) -> Credentials {
        Credentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: token.map(str::to_owned),
        }
    }

    fn check_at(request: &Request, token: Option<&str>, now: &str) -> Result<(), Refusal> {
        let credentials = credentials(token);
        let now = parse_amz_date(now).unwrap();
        Verifier { credentials: &credentials, region: "us-east-1", service: "service", now }
            .check(request)
    }

    fn check(request: &Request, token: Option<&str>) -> Result<(), Refusal> {
        check_at(request, token, "20150830T123600Z")
    }

    const HOST: (&str, &str) = ("Host", "example.amazonaws.com");

    #[test]
    fn trimmed_headers_as_published() {
        let headers = [HOST, ("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")];
        let signature = "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736";
        check(&vector("GET", "/", &headers, signature), None).unwrap();
    }

    #[test]
    fn sorted_query_as_published() {
        let signature = "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";
        check(&vector("GET", "/?Param2=value2&Param1=value1", &[HOST], signature), None).unwrap();
    }

    fn with_token() -> Request {
        let signature = "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead";
        vector("POST", "/", &[HOST, ("X-Amz-Security-Token", TOKEN)], signature)
    }

    #[test]
    fn session_token_as_published() {
        check(&with_token(), Some(TOKEN)).unwrap();
        assert_eq!(
            check(&with_token(), Some("other")).unwrap_err().code,
            "UnrecognizedClientException"
        );
    }

    #[test]
    fn body_and_content_hash_as_published() {
        let hash = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
        let kind = "application/x-www-form-urlencoded";
        let headers = [
            ("Content-Type", kind),
            HOST,
            ("Content-Length", "13"),
            ("x-amz-content-sha256", hash),
        ];
        let signature = "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b";
        let mut request = vector("POST", "/", &headers, signature);
        request.body = b"Param1=value1".to_vec();
        check(&request, None).unwrap();
        request.body = b"Param1=value2".to_vec();
        assert_eq!(check(&request, None).unwrap_err().code, "InvalidSignatureException");
    }

    #[test]
    fn what_is_refused_and_why() {
        let mut unsigned = with_token();
        unsigned
            .headers
            .push(("X-Amz-Target".to_owned(), "Kinesis_20131202.PutRecords".to_owned()));
        assert!(
            check(&unsigned, Some(TOKEN)).unwrap_err().message.contains("'x-amz-target' must be")
        );

        let mut anonymous = with_token();
        anonymous.headers.retain(|(name, _)| name != "Authorization");
        assert_eq!(
            check(&anonymous, Some(TOKEN)).unwrap_err().code,
            "MissingAuthenticationTokenException"
        );

        let early = check_at(&with_token(), Some(TOKEN), "20150830T123059Z").unwrap_err();
        assert!(
            early
                .message
                .starts_with("Signature not yet current: 20150830T123600Z is still later than")
        );
        let late = check_at(&with_token(), Some(TOKEN), "20150830T124101Z").unwrap_err();
        assert_eq!(
            late.message,
            "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)"
        );
    }

    #[test]
    fn a_wrong_region_or_service_is_named() {
        let credentials = credentials(Some(TOKEN));
        let now = parse_amz_date("20150830T123600Z").unwrap();
        let elsewhere =
            Verifier { credentials: &credentials, region: "eu-west-1", service: "service", now };
        let refused = elsewhere.check(&with_token()).unwrap_err();
        assert_eq!(
            refused.message,
            "Credential should be scoped to a valid region, not 'us-east-1'. "
        );
        let other =
            Verifier { credentials: &credentials, region: "us-east-1", service: "kinesis", now };
        let refused = other.check(&with_token()).unwrap_err();
        assert_eq!(refused.message, "Credential should be scoped to correct service: 'kinesis'. ");
    }
}
