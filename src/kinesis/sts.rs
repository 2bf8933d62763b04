//! AssumeRole: one call to the regional STS, which exchanges the function's keys for those of
//! another role.

use std::fmt;
use std::fmt::Write as _;
use std::time::Instant;

use http::Request;
use sha2::{Digest, Sha256};

use super::clock_skew::ClockSkew;
use super::credentials::{CALL_TIMEOUT, Credentials, ExpiringCredentials, MAX_ANSWER};
use super::endpoint::{self, Endpoint};
use super::error::{ASSUME_ROLE, Error, ErrorKind, read_error};
use super::error_body::tag;
use super::http::HttpSettings;
use super::interrupt::InterruptHandle;
use super::sign;
use crate::deadline::{Deadline, Limit};

/// The longest that AWS allows a role which is assumed with a role's credentials.
const LIFETIME_SECONDS: u32 = 3600;

/// A role to assume, and where to ask for it.
#[derive(Clone)]
pub struct Role {
    /// `KINESIS_TELEMETRY_ROLE_ARN`
    pub arn: String,
    /// `KINESIS_TELEMETRY_EXTERNAL_ID`
    pub external_id: Option<String>,
    /// Shows in CloudTrail: the function's name where it is known.
    pub session: String,
    /// The regional STS.
    pub endpoint: Endpoint,
}

/// An external id is no secret by AWS's word, but nobody's business either.
impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Role({})", self.arn)
    }
}

/// Whether `text` is the ARN of a role in the partition of `region`: no other can be assumed from
/// there.
///
/// # Errors
/// Which part of it is wrong, as a clause.
pub fn check_role(text: &str, region: &str) -> Result<(), &'static str> {
    let [partition, none, account, resource] = endpoint::arn_parts(text, "iam")?;
    if partition != endpoint::partition(region) {
        return Err("the ARN's second part is not the partition of the stream's region");
    }
    if !none.is_empty() {
        return Err("the ARN's fourth part is not empty");
    }
    endpoint::check_account(account)?;
    let name = resource.strip_prefix("role/").unwrap_or_default();
    let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@-_/".contains(&b));
    let good = legal && !name.is_empty();
    good.then_some(()).ok_or("the ARN's last part is not role/ and a role's name")
}

/// Whether `text` can be an external id.
#[must_use]
pub fn is_external_id(text: &str) -> bool {
    (2..=1224).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b))
}

/// What of `text` can stand in a session's name.
#[must_use]
pub fn session_name(text: &str) -> String {
    let name: String = text
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "_=,.@-".contains(*c))
        .take(64)
        .collect();
    if name.len() < 2 { env!("CARGO_PKG_NAME").to_owned() } else { name }
}

/// Calls STS once, or twice if the signature's time was wrong: then the clock is corrected, or the
/// signature had grown old in a freeze.
pub(super) fn assume(
    role: &Role,
    credentials: &Credentials,
    http: &HttpSettings,
    interrupts: &InterruptHandle,
    skew: &mut ClockSkew,
    deadline: &Deadline,
) -> Result<ExpiringCredentials, Error> {
    let deadline =
        Deadline::after(Instant::now(), CALL_TIMEOUT, Limit::Credentials).earlier(*deadline);
    let mut call = || -> Result<ExpiringCredentials, Error> {
        let mut client = http.client(role.endpoint.url(), interrupts)?;
        let body = form(role);
        let mut signed_anew = false;
        loop {
            let response =
                client.send(request(role, &body, credentials, skew)?, &body, &deadline)?;
            if response.status == 200 {
                return read_answer(&response.body, skew).ok_or_else(|| {
                    Error::new("UnreadableResponse", "an answer without credentials")
                });
            }
            let mut error = read_error(response.status, &response.headers, &response.body);
            let id = role.external_id.as_deref();
            error.detail.take_if(|words| id.is_some_and(|id| words.contains(id)));
            if error.kind != ErrorKind::ClockSkew || signed_anew {
                return Err(error);
            }
            skew.learn(&response.headers);
            signed_anew = true;
        }
    };
    call().map_err(|error| error.while_fetching(ASSUME_ROLE))
}

fn request(
    role: &Role,
    body: &[u8],
    credentials: &Credentials,
    skew: &ClockSkew,
) -> Result<Request<()>, Error> {
    let hash = Sha256::digest(body).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let scope = sign::Scope {
        url: role.endpoint.url(),
        region: role.endpoint.region(),
        service: "sts",
        time: skew.now(),
    };
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    sign::post(&scope, credentials, &headers, hash)
}

fn form(role: &Role) -> Vec<u8> {
    let mut body =
        format!("Action=AssumeRole&Version=2011-06-15&DurationSeconds={LIFETIME_SECONDS}");
    let external_id = role.external_id.as_deref().map(|id| ("ExternalId", id));
    for (name, value) in [("RoleArn", role.arn.as_str()), ("RoleSessionName", &role.session)]
        .into_iter()
        .chain(external_id)
    {
        let _ = write!(body, "&{name}=");
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                body.push(char::from(byte));
            } else {
                let _ = write!(body, "%{byte:02X}");
            }
        }
    }
    body.into_bytes()
}

/// Emulators answer XML whatever they are asked for, and so does STS unless it is asked for JSON:
/// four elements are cut out of it.
fn read_answer(body: &[u8], skew: &ClockSkew) -> Option<ExpiringCredentials> {
    if body.len() > MAX_ANSWER {
        return None;
    }
    let xml = &String::from_utf8_lossy(body);
    let credentials = Credentials::answered(
        tag(xml, "AccessKeyId")?,
        tag(xml, "SecretAccessKey")?,
        Some(tag(xml, "SessionToken")?),
    )?;
    Some(ExpiringCredentials::new(credentials, tag(xml, "Expiration").as_deref(), skew.now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(external_id: Option<&str>) -> Role {
        Role {
            arn: "arn:aws:iam::123456789012:role/path/writer".to_owned(),
            external_id: external_id.map(str::to_owned),
            session: "orders".to_owned(),
            endpoint: Endpoint::default(),
        }
    }

    #[test]
    fn the_form_is_escaped() {
        let plain = "Action=AssumeRole&Version=2011-06-15&DurationSeconds=3600\
                     &RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fpath%2Fwriter&RoleSessionName=orders";
        assert_eq!(String::from_utf8(form(&role(None))).unwrap(), plain);
        assert_eq!(
            String::from_utf8(form(&role(Some("a+b=c&d")))).unwrap(),
            format!("{plain}&ExternalId=a%2Bb%3Dc%26d")
        );
    }

    #[test]
    fn roles_external_ids_and_session_names() {
        for (arn, good) in [
            ("arn:aws:iam::123456789012:role/writer", true),
            ("arn:aws:iam::123456789012:role/a/b/writer", true),
            ("arn:aws-cn:iam::123456789012:role/writer", false),
            ("arn:awsbogus:iam::123456789012:role/writer", false),
            ("arn:aws:iam::123456789012:user/writer", false),
            ("arn:aws:sts::123456789012:assumed-role/writer/x", false),
            ("arn:aws:iam::123:role/writer", false),
            ("arn:aws:iam::123456789012:role/", false),
            ("arn:aws:iam::123456789012:role/a b", false),
            ("writer", false),
        ] {
            assert_eq!(check_role(arn, "eu-west-1").is_ok(), good, "{arn}");
        }
        assert!(check_role("arn:aws-cn:iam::123456789012:role/writer", "cn-north-1").is_ok());
        for (arn, part) in [
            ("writer", "six parts"),
            ("arn:aws:sts::123456789012:role/writer", "third part"),
            ("arn:aws-cn:iam::123456789012:role/writer", "second part"),
            ("arn:aws:iam:eu-west-1:123456789012:role/writer", "fourth part"),
            ("arn:aws:iam::123:role/writer", "fifth part"),
            ("arn:aws:iam::123456789012:user/writer", "last part"),
        ] {
            assert!(check_role(arn, "eu-west-1").is_err_and(|fault| fault.contains(part)), "{arn}");
        }
        assert!(is_external_id("a:b/c-1") && !is_external_id("x") && !is_external_id("has space"));
        assert_eq!(session_name("orders-1_x"), "orders-1_x");
        assert_eq!(session_name("x".repeat(90).as_str()).len(), 64);
        assert_eq!(session_name("é"), "kinesis-telemetry-extension");
    }

    #[test]
    fn answers_and_refusals_are_cut_out_of_xml() {
        let xml = r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><AssumedRoleUser>
            <AssumedRoleId>AROA:orders</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>ASIA1</AccessKeyId>
            <SecretAccessKey>s/+=</SecretAccessKey><SessionToken>
            t//==</SessionToken><Expiration>2026-11-23T18:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"#;
        assert!(read_answer(xml.as_bytes(), &ClockSkew::default()).is_some());
        assert!(read_answer(b"<html>", &ClockSkew::default()).is_none());
        let large = xml.to_owned() + &" ".repeat(MAX_ANSWER);
        assert!(read_answer(large.as_bytes(), &ClockSkew::default()).is_none());
        assert_eq!(tag(xml, "SessionToken").as_deref(), Some("t//=="));

        for (status, body, code, kind) in [
            (
                403,
                "<Code>AccessDenied</Code><Message>a &lt;b&gt;</Message>",
                "AssumeRole.AccessDenied",
                ErrorKind::Configuration,
            ),
            (
                403,
                "<Code>RegionDisabledException</Code>",
                "AssumeRole.RegionDisabledException",
                ErrorKind::Configuration,
            ),
            (403, "<Code>ExpiredToken</Code>", "AssumeRole.ExpiredToken", ErrorKind::Credentials),
            (
                400,
                "<Code>ValidationError</Code>",
                "AssumeRole.ValidationError",
                ErrorKind::Configuration,
            ),
            (400, "<Code>Throttling</Code>", "AssumeRole.Throttling", ErrorKind::Throttled),
            (503, "<html>", "AssumeRole.Http503", ErrorKind::Transient),
            (413, "", "AssumeRole.Http413", ErrorKind::Configuration),
            (
                403,
                "<Code>SignatureDoesNotMatch</Code><Message>Signature expired: x</Message>",
                "AssumeRole.SignatureDoesNotMatch",
                ErrorKind::ClockSkew,
            ),
        ] {
            let body = if body.starts_with("<Code>") {
                format!("<ErrorResponse><Error>{body}</Error></ErrorResponse>")
            } else {
                body.to_owned()
            };
            let error = read_error(status, &http::HeaderMap::new(), body.as_bytes())
                .while_fetching(ASSUME_ROLE);
            assert_eq!((error.code.as_str(), error.kind), (code, kind));
            assert!(!error.to_string().contains("<b>"), "the body's words stay out of log lines");
        }
    }
}
