//! What stands in the body of a refusal, whichever of its forms it has: a code, and words for a
//! person. Matches no code: that is done in `error.rs`. Whatever of it is shown or kept is cleaned
//! before: see [`clean`]. Pure.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::cbor;

/// A longer one is nobody's answer, in bytes. Taken apart it would cost more memory than there is
/// to give.
pub(super) const MAX_ERROR_BODY: usize = 64 * 1024;

/// What is read of JSON of any kind, CBOR, XML, HTML, or nothing.
pub(super) fn code_and_message(body: &[u8]) -> (Option<String>, Option<String>) {
    let body = if body.len() > MAX_ERROR_BODY { b"" } else { body };
    let json = cbor::is_map(body).then(|| cbor::to_json(body).unwrap_or_default());
    let body = json.as_deref().unwrap_or(body);
    if body.trim_ascii_start().starts_with(b"<") { xml_error(body) } else { json_error(body) }
}

/// Code and message of `{"__type": …, "message": …}`. Each key is read for itself, so that an odd
/// one takes no other with it.
fn json_error(body: &[u8]) -> (Option<String>, Option<String>) {
    let Members(members) = crate::json::read(body).unwrap_or_default();
    let text = |name: &str| {
        let (_, raw) = members.iter().rfind(|(key, _)| key == name)?;
        serde_json::from_str::<String>(raw.get()).ok().filter(|text| !text.is_empty())
    };
    (
        text("__type").or_else(|| text("code")).or_else(|| text("Code")),
        text("message").or_else(|| text("Message")),
    )
}

/// An object's members as they come; of two with one name the last one counts. A hash map would
/// bring its code into the program for this alone.
#[derive(Default)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        deserializer.deserialize_map(Members::default())
    }
}

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Members<'de>, A::Error> {
        while let Some(member) = map.next_entry()? {
            self.0.push(member);
        }
        Ok(self)
    }
}

fn xml_error(body: &[u8]) -> (Option<String>, Option<String>) {
    let text = String::from_utf8_lossy(body);
    (tag(&text, "Code"), tag(&text, "Message"))
}

/// The text of the first XML element of that name.
pub(super) fn tag(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(
        plain
            .iter()
            .fold(text.trim().to_owned(), |text, (entity, plain)| text.replace(entity, plain)),
    )
}

/// What of a text from an answer may be shown and kept: letters, digits and `._-`, at most 64 of
/// them.
#[must_use]
pub(super) fn clean(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(64).collect()
}
