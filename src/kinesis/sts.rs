//! AssumeRole: one call to the regional STS, which exchanges the function's keys for those of another role.

use std::fmt;
use std::fmt::Write as _;
use std::time::Instant;

use http::Request;
use sha2::{Digest, Sha256};

use super::credentials::{Keys, Lease};
use super::endpoint::Endpoint;
use super::put_records::{Failure, Remedy, is_about_time, person, remedy};
use super::sign;
use super::skew::Skew;
use super::way::{Way, exchange};
use crate::deadline::{Deadline, Limit};

/// What the codes of failures here begin with; STS's own code follows.
pub const FAILED: &str = "AssumeRole.";
/// The longest that AWS allows a role which is assumed by a role's keys.
const SECONDS: u32 = 3600;

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

/// Whether `text` is a role's ARN.
#[must_use]
pub fn is_role(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts.as_slice() else { return false };
    let name = resource.strip_prefix("role/").unwrap_or_default();
    let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@-_/".contains(&b));
    partition.starts_with("aws") && account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() && legal
}

/// Whether `text` can be an external id.
#[must_use]
pub fn is_external_id(text: &str) -> bool {
    (2..=1224).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b))
}

/// What of `text` can stand in a session's name.
#[must_use]
pub fn session_name(text: &str) -> String {
    let name: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || "_=,.@-".contains(*c)).take(64).collect();
    if name.len() < 2 { env!("CARGO_PKG_NAME").to_owned() } else { name }
}

/// Calls STS once, or twice if the local clock turns out to be wrong.
pub(super) fn assume(role: &Role, keys: &Keys, way: &Way, skew: &mut Skew, deadline: &Deadline) -> Result<Lease, Failure> {
    let deadline = Deadline::after(Instant::now(), super::credentials::CALL, Limit::Credentials).earlier(*deadline);
    let agent = way.agent(role.endpoint.url())?;
    let mut corrected = false;
    loop {
        let (status, headers, body) = exchange(&agent, request(role, keys, skew)?, &deadline, false).map_err(on_the_way)?;
        let text = String::from_utf8_lossy(&body);
        if status == 200 {
            return read_answer(&text, skew).ok_or_else(|| person(&format!("{FAILED}UnreadableAnswer"), "an answer without keys".to_owned()));
        }
        let failure = read_failure(status, &text);
        if !failure.about_time || corrected || !skew.learn(&headers) {
            return Err(failure);
        }
        corrected = true;
    }
}

fn request(role: &Role, keys: &Keys, skew: &Skew) -> Result<Request<Vec<u8>>, Failure> {
    let body = form(role);
    let hash = Sha256::digest(&body).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let scope = sign::Scope { url: role.endpoint.url(), region: role.endpoint.region(), service: "sts", time: skew.now() };
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let signature = sign::headers(&scope, keys, &headers, hash).map_err(|message| person("BadCredentials", message))?;
    let post = headers.iter().fold(Request::post(role.endpoint.url()), |post, (name, value)| post.header(*name, *value));
    let post = signature.into_iter().fold(post, |post, (name, value)| post.header(name, value));
    post.body(body).map_err(|error| person("BadRequest", error.to_string()))
}

fn form(role: &Role) -> Vec<u8> {
    let mut body = format!("Action=AssumeRole&Version=2011-06-15&DurationSeconds={SECONDS}");
    let external_id = role.external_id.as_deref().map(|id| ("ExternalId", id));
    for (name, value) in [("RoleArn", role.arn.as_str()), ("RoleSessionName", &role.session)].into_iter().chain(external_id) {
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

/// Emulators answer XML whatever they are asked for, and so does STS unless told otherwise: four tags are cut out of it.
fn read_answer(xml: &str, skew: &Skew) -> Option<Lease> {
    let keys = Keys::new(tag(xml, "AccessKeyId")?, tag(xml, "SecretAccessKey")?, Some(tag(xml, "SessionToken")?));
    Some(Lease::new(keys, tag(xml, "Expiration").as_deref(), skew.now()))
}

fn read_failure(status: u16, xml: &str) -> Failure {
    let code: String = tag(xml, "Code").unwrap_or_default().chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(64).collect();
    let code = if code.is_empty() { format!("Http{status}") } else { code };
    let message = tag(xml, "Message");
    let request_id = tag(xml, "RequestId").filter(|id| id.len() <= 64 && id.bytes().all(|b| b.is_ascii_graphic()));
    let shown = request_id.map_or_else(|| format!("HTTP {status}"), |id| format!("HTTP {status}, request id {id}"));
    let remedy = match remedy(&code, status) {
        Remedy::Split => Remedy::Person,
        other => other,
    };
    let about_time = is_about_time(&code, message.as_deref().unwrap_or_default());
    Failure { remedy, about_time, detail: message, ..person(&format!("{FAILED}{code}"), shown) }
}

/// What happens on the way to STS cannot have put a record anywhere.
fn on_the_way(failure: Failure) -> Failure {
    Failure { code: format!("{FAILED}{}", failure.code), ambiguous: false, ..failure }
}

/// The text of the first element of that name.
fn tag(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(plain.iter().fold(text.trim().to_owned(), |text, (entity, plain)| text.replace(entity, plain)))
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
        assert_eq!(String::from_utf8(form(&role(Some("a+b=c&d")))).unwrap(), format!("{plain}&ExternalId=a%2Bb%3Dc%26d"));
    }

    #[test]
    fn roles_external_ids_and_session_names() {
        for (arn, good) in [
            ("arn:aws:iam::123456789012:role/writer", true),
            ("arn:aws-cn:iam::123456789012:role/a/b/writer", true),
            ("arn:aws:iam::123456789012:user/writer", false),
            ("arn:aws:sts::123456789012:assumed-role/writer/x", false),
            ("arn:aws:iam::123:role/writer", false),
            ("arn:aws:iam::123456789012:role/", false),
            ("arn:aws:iam::123456789012:role/a b", false),
            ("writer", false),
        ] {
            assert_eq!(is_role(arn), good, "{arn}");
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
        assert!(read_answer(xml, &Skew::default()).is_some());
        assert!(read_answer("<html>", &Skew::default()).is_none());
        assert_eq!(tag(xml, "SessionToken").as_deref(), Some("t//=="));

        for (status, body, code, remedy) in [
            (403, "<Code>AccessDenied</Code><Message>a &lt;b&gt;</Message>", "AssumeRole.AccessDenied", Remedy::Person),
            (403, "<Code>RegionDisabledException</Code>", "AssumeRole.RegionDisabledException", Remedy::Person),
            (403, "<Code>ExpiredToken</Code>", "AssumeRole.ExpiredToken", Remedy::Person),
            (400, "<Code>ValidationError</Code>", "AssumeRole.ValidationError", Remedy::Person),
            (400, "<Code>Throttling</Code>", "AssumeRole.Throttling", Remedy::Throttled),
            (503, "<html>", "AssumeRole.Http503", Remedy::Transient),
        ] {
            let failure = read_failure(status, body);
            assert_eq!((failure.code.as_str(), failure.remedy), (code, remedy));
            assert!(!failure.to_string().contains("<b>"), "the body's words stay out of log lines");
        }
        assert!(read_failure(403, "<Code>SignatureDoesNotMatch</Code><Message>Signature expired: x</Message>").about_time);
    }
}
