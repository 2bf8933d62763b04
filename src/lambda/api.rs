//! The Extensions API and the Telemetry API's subscription: register, subscribe, next, init/error,
//! exit/error.
//!
//! Runs on the main thread. What a call is on the wire is the client's business.

use std::fmt;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::api_client::{Answer, ApiClient, Call};
use crate::clock::EpochMs;

/// What is asked of the Telemetry API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffering {
    /// How long a batch may wait, in milliseconds.
    pub timeout_ms: u64,
    /// Bytes in a batch.
    pub max_bytes: u64,
    /// Events in a batch.
    pub max_items: u64,
}

/// The schema with Managed Instances' events; regions that do not know it yet answer 400.
const SCHEMAS: [&str; 2] = ["2025-01-29", "2022-12-13"];
/// `/next` fails for a reason of Lambda's or because the sandbox is being torn down: try again this
/// often, with a growing pause, then give up.
const NEXT_TRIES: u32 = 40;
/// As a person is to read it.
const SUBSCRIBE: &str = "telemetry subscription";

/// The identifier that registration gives and every other call shows. A secret between Lambda and
/// this process.
#[derive(Clone)]
pub struct ExtensionId(String);

impl fmt::Debug for ExtensionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExtensionId(not shown)")
    }
}

/// What registration gives.
#[derive(Debug)]
pub struct Registered {
    /// For all other calls.
    pub id: ExtensionId,
    /// Whether INVOKE events will come. They do not on Managed Instances.
    pub invokes: bool,
    /// About the function.
    pub function: Function,
}

/// The function that this extension runs beside. Empty where Lambda does not say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Function {
    /// Its account; only where the feature is known.
    pub account_id: String,
    /// Its name.
    pub function_name: String,
    /// `$LATEST` or a number.
    pub function_version: String,
}

/// What `/next` brings.
#[derive(Debug, PartialEq, Eq)]
pub enum NextEvent {
    /// An invocation has begun.
    Invoke(Invoke),
    /// The sandbox ends.
    Shutdown {
        /// The end of the whole window.
        deadline_ms: EpochMs,
        /// `spindown`, `timeout`, `failure`, or what an emulator makes up; lower case.
        reason: String,
    },
}

/// An INVOKE event.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invoke {
    /// When the function times out.
    #[serde(default, deserialize_with = "milliseconds")]
    pub deadline_ms: EpochMs,
    /// As in telemetry.
    #[serde(default)]
    pub request_id: String,
    /// With the qualifier that the caller used.
    #[serde(default)]
    pub invoked_function_arn: String,
}

/// What became of the subscription.
#[derive(Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Telemetry will come.
    Active,
    /// There is no Telemetry API here (a local emulator); the answer's status.
    NotHere(u16),
}

/// A call to Lambda that did not work: which, and why.
#[derive(Debug)]
pub struct ApiError {
    call: &'static str,
    why: String,
    /// The answer's error type, where there was an answer.
    kind: Option<String>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.call, self.why)
    }
}

impl std::error::Error for ApiError {}

/// Lambda's API inside the sandbox.
#[derive(Debug)]
pub struct Api {
    client: ApiClient,
}

impl Api {
    /// `runtime_api` is `host:port`; a URL is taken too, as some emulators set one.
    #[must_use]
    pub fn new(runtime_api: &str) -> Api {
        Api { client: ApiClient::new(runtime_api) }
    }

    /// Registers for INVOKE and SHUTDOWN, or for SHUTDOWN alone where `invokes` says so or Lambda
    /// refuses INVOKE (Managed Instances).
    ///
    /// # Errors
    /// If Lambda refuses or cannot be reached: there is nothing left to do then but to end.
    pub fn register(&self, name: &str, invokes: bool) -> Result<Registered, ApiError> {
        match self.register_for(name, invokes) {
            Err(error)
                if invokes && error.kind.as_deref() == Some("Extension.InvalidEventType") =>
            {
                self.register_for(name, false)
            }
            other => other,
        }
    }

    fn register_for(&self, name: &str, invokes: bool) -> Result<Registered, ApiError> {
        const CALL: &str = "register";
        let events = if invokes {
            r#"{"events":["INVOKE","SHUTDOWN"]}"#
        } else {
            r#"{"events":["SHUTDOWN"]}"#
        };
        let headers =
            [("Lambda-Extension-Name", name), ("Lambda-Extension-Accept-Feature", "accountId")];
        let path = "/2020-01-01/extension/register";
        let answer = self.call(CALL, "POST", path, &headers, Some(events))?;
        match answer.identifier {
            Some(id) if answer.status == 200 => Ok(Registered {
                id: ExtensionId(id),
                invokes,
                function: crate::json::read(&answer.body).unwrap_or_default(),
            }),
            _ => Err(refused(CALL, &answer)),
        }
    }

    /// Asks for telemetry at `uri`. Falls back to the older schema on a 400.
    ///
    /// # Errors
    /// If Lambda refuses or cannot be reached. A 202 or 404 is no error: [`Subscription::NotHere`].
    pub fn subscribe(
        &self,
        id: &ExtensionId,
        uri: &str,
        types: &[&str],
        buffering: Buffering,
    ) -> Result<Subscription, ApiError> {
        let [newest, older] = SCHEMAS;
        let mut answer = self.subscribe_with(newest, id, uri, types, buffering)?;
        if answer.status == 400 {
            answer = self.subscribe_with(older, id, uri, types, buffering)?;
        }
        match answer.status {
            200 => Ok(Subscription::Active),
            status @ (202 | 404) => Ok(Subscription::NotHere(status)),
            _ => Err(refused(SUBSCRIBE, &answer)),
        }
    }

    fn subscribe_with(
        &self,
        schema: &str,
        id: &ExtensionId,
        uri: &str,
        types: &[&str],
        buffering: Buffering,
    ) -> Result<Answer, ApiError> {
        let Buffering { timeout_ms, max_bytes, max_items } = buffering;
        let body = format!(
            concat!(
                r#"{{"schemaVersion":"{schema}","types":["{types}"],"#,
                r#""buffering":{{"maxItems":{max_items},"maxBytes":{max_bytes},"#,
                r#""timeoutMs":{timeout_ms}}},"#,
                r#""destination":{{"protocol":"HTTP","URI":"{uri}"}}}}"#
            ),
            schema = schema,
            types = types.join("\",\""),
            max_items = max_items,
            max_bytes = max_bytes,
            timeout_ms = timeout_ms,
            uri = uri,
        );
        let headers = [("Lambda-Extension-Identifier", id.0.as_str())];
        self.call(SUBSCRIBE, "PUT", "/2022-07-01/telemetry", &headers, Some(&body))
    }

    /// Says that all is done with the event before, and waits for the next one; as long as it
    /// takes.
    ///
    /// # Errors
    /// If it keeps failing for about a minute: then the sandbox's API is gone.
    pub fn next(&self, id: &ExtensionId) -> Result<NextEvent, ApiError> {
        let mut tries = 0;
        loop {
            match self.try_next(id) {
                Err(error) if tries < NEXT_TRIES => {
                    crate::log::warn!("next", "{error}; tried again");
                    thread::sleep(Duration::from_millis(50 << tries.min(5)));
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    fn try_next(&self, id: &ExtensionId) -> Result<NextEvent, ApiError> {
        const CALL: &str = "next";
        let headers = [("Lambda-Extension-Identifier", id.0.as_str())];
        let answer = self.call(CALL, "GET", "/2020-01-01/extension/event/next", &headers, None)?;
        if answer.status != 200 {
            return Err(refused(CALL, &answer));
        }
        read_event(&answer.body).ok_or_else(|| ApiError {
            call: CALL,
            why: "an event that is neither INVOKE nor SHUTDOWN".to_owned(),
            kind: None,
        })
    }

    /// Reports that the start failed: the function's init fails with `kind`, which must look like
    /// `Extension.Reason`. Best effort.
    pub fn init_error(&self, id: &ExtensionId, kind: &str) {
        self.report("/2020-01-01/extension/init/error", id, kind);
    }

    /// Reports that the extension has to end although it is not shut down. Best effort.
    pub fn exit_error(&self, id: &ExtensionId, kind: &str) {
        self.report("/2020-01-01/extension/exit/error", id, kind);
    }

    fn report(&self, path: &str, id: &ExtensionId, kind: &str) {
        let headers = [
            ("Lambda-Extension-Identifier", id.0.as_str()),
            ("Lambda-Extension-Function-Error-Type", kind),
        ];
        let _ = self.call("error report", "POST", path, &headers, None);
    }

    fn call(
        &self,
        call: &'static str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Answer, ApiError> {
        let answer = self.client.call(&Call { method, path, headers, body });
        answer.map_err(|error| ApiError { call, why: error.to_string(), kind: None })
    }
}

/// The file name that Lambda started, which is the name that it expects to be registered.
#[must_use]
pub fn own_name() -> String {
    let path = std::env::args_os()
        .next()
        .map(std::path::PathBuf::from)
        .or_else(|| std::env::current_exe().ok());
    let name = path
        .as_deref()
        .and_then(|path| path.file_name()?.to_str())
        .unwrap_or(env!("CARGO_PKG_NAME"));
    name.to_owned()
}

fn read_event(body: &[u8]) -> Option<NextEvent> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        event_type: String,
        #[serde(default, deserialize_with = "milliseconds")]
        deadline_ms: EpochMs,
        #[serde(default)]
        shutdown_reason: String,
    }
    let kind: Kind = crate::json::read(body).ok()?;
    match kind.event_type.as_str() {
        "INVOKE" => crate::json::read(body).ok().map(NextEvent::Invoke),
        "SHUTDOWN" => Some(NextEvent::Shutdown {
            deadline_ms: kind.deadline_ms,
            reason: kind.shutdown_reason.to_ascii_lowercase(),
        }),
        _ => None,
    }
}

/// Any number, and 0 for what is none: an event with an odd deadline is still an event.
fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EpochMs, D::Error> {
    let value = Box::<RawValue>::deserialize(deserializer)?;
    // Whatever stands behind the point; a float's parser would cost more than all else here.
    let whole = value.get().split('.').next().unwrap_or_default();
    Ok(whole.parse().unwrap_or_default())
}

/// Lambda's own words of why it refused a call. Bodies are not always JSON (AWS's emulator does not
/// escape), so only what parses is shown.
fn refused(call: &'static str, answer: &Answer) -> ApiError {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Reason {
        error_type: String,
        error_message: String,
    }
    let reason: Reason = crate::json::read(&answer.body).unwrap_or_default();
    let status = answer.status;
    let why = format!("HTTP {status} {} {}", reason.error_type, reason.error_message);
    ApiError { call, why: why.trim().to_owned(), kind: Some(reason.error_type) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_as_lambda_writes_them() {
        let invoke = concat!(
            r#"{"eventType":"INVOKE","deadlineMs":1791459888123,"requestId":"3da1f2dc","#,
            r#""invokedFunctionArn":"arn:x","tracing":{"type":"X","value":"y"}}"#
        );
        let expected = Invoke {
            deadline_ms: 1_791_459_888_123,
            request_id: "3da1f2dc".to_owned(),
            invoked_function_arn: "arn:x".to_owned(),
        };
        assert_eq!(read_event(invoke.as_bytes()), Some(NextEvent::Invoke(expected)));
        let shutdown = br#"{"eventType":"SHUTDOWN","deadlineMs":5,"shutdownReason":"SPINDOWN"}"#;
        assert_eq!(
            read_event(shutdown),
            Some(NextEvent::Shutdown { deadline_ms: 5, reason: "spindown".to_owned() })
        );
        for (deadline, expected) in [
            ("-5", 0),
            ("1791459888123.5", 1_791_459_888_123),
            ("null", 0),
            ("\"soon\"", 0),
            ("1e99", 0),
        ] {
            let shutdown = format!(
                r#"{{"eventType":"SHUTDOWN","deadlineMs":{deadline},"shutdownReason":"failure"}}"#
            );
            let expected =
                NextEvent::Shutdown { deadline_ms: expected, reason: "failure".to_owned() };
            assert_eq!(read_event(shutdown.as_bytes()), Some(expected), "{deadline}");
        }
        assert_eq!(read_event(br#"{"eventType":"PAUSE"}"#), None);
        assert_eq!(read_event(b"<html>"), None);
    }
}
