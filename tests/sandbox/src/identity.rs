//! Where keys come from: the container endpoint of SnapStart sandboxes, and an STS that knows `AssumeRole`. Both on one port.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::clock::{iso_millis, shifted};
use crate::http::{Request, Wire, answer};
use crate::kinesis::{Credentials, Verifier};
use crate::server::{Serve, Server};
use crate::wait::{Stop, lock};

const TOKEN: &str = "2f7d1c52-sandbox-token";
const CONTAINER: &str = "/2021-04-23/credentials";

/// A running endpoint; ends with this value.
pub struct Identity {
    // Dropped first: its threads use the rest.
    server: Server,
    desk: Arc<Desk>,
}

struct Desk {
    stop: Stop,
    counter: Mutex<Counter>,
}

struct Counter {
    gives: Credentials,
    valid: Duration,
    /// Who may call STS.
    caller: Credentials,
    refusal: Option<(u16, String, String)>,
    clock_ms: i64,
    requests: Vec<Request>,
}

impl Identity {
    /// Gives these keys, good for an hour, to whoever has the token (container) or signs with `caller` (STS).
    ///
    /// # Panics
    /// When the machine has no port or no thread left.
    #[must_use]
    pub fn start(gives: &Credentials, caller: &Credentials) -> Self {
        let counter = Counter {
            gives: gives.clone(),
            valid: Duration::from_secs(3600),
            caller: caller.clone(),
            refusal: None,
            clock_ms: 0,
            requests: Vec::new(),
        };
        let desk = Arc::new(Desk { stop: Stop::default(), counter: Mutex::new(counter) });
        let server = Server::start(Arc::clone(&desk) as _).expect("a port of 127.0.0.1 is free");
        Self { server, desk }
    }

    /// For `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    #[must_use]
    pub fn container_url(&self) -> String {
        format!("http://{}{CONTAINER}", self.server.address())
    }

    /// For `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    #[must_use]
    pub fn token(&self) -> &'static str {
        TOKEN
    }

    /// For `AWS_ENDPOINT_URL_STS`.
    #[must_use]
    pub fn sts_url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// From now on it gives these keys, and says that they are good for that long.
    pub fn gives(&self, keys: &Credentials, valid: Duration) {
        let mut counter = lock(&self.desk.counter);
        counter.gives = keys.clone();
        counter.valid = valid;
    }

    /// From now on it refuses, with this status and STS's error of that name and text; `None` ends that.
    pub fn refuses(&self, refusal: Option<(u16, &str, &str)>) {
        lock(&self.desk.counter).refusal =
            refusal.map(|(status, code, text)| (status, code.to_owned(), text.to_owned()));
    }

    /// Moves its clock, against which signatures are checked.
    pub fn move_clock(&self, seconds: i64) {
        lock(&self.desk.counter).clock_ms = seconds * 1000;
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.desk.counter).requests.clone()
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.desk.stop.set();
    }
}

impl Serve for Desk {
    fn serve(&self, _: u64, stream: TcpStream) {
        let mut wire = Wire::new(stream);
        while !self.stop.is_set() {
            let Ok(request) = wire.request(64 * 1024, || ()) else { return };
            let bytes = self.settle(&request);
            if wire.stream.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

impl Desk {
    fn settle(&self, request: &Request) -> Vec<u8> {
        let mut counter = lock(&self.counter);
        counter.requests.push(request.clone());
        let now = shifted(SystemTime::now(), counter.clock_ms);
        let (status, body) = if request.method == "GET" {
            counter.container(request, now)
        } else {
            counter.sts(request, now)
        };
        answer(status, &[("Date", &httpdate::fmt_http_date(now))], body.as_bytes())
    }
}

impl Counter {
    fn container(&self, request: &Request, now: SystemTime) -> (u16, String) {
        if let Some((status, ..)) = &self.refusal {
            return (*status, String::new());
        }
        if request.target != CONTAINER || request.header("authorization") != Some(TOKEN) {
            return (404, "cannot get credentials for the provided token".to_owned());
        }
        let Credentials { access_key_id, secret_access_key, session_token } = &self.gives;
        let keys = serde_json::json!({
            "AccessKeyId": access_key_id,
            "SecretAccessKey": secret_access_key,
            "Token": session_token,
            "Expiration": iso_millis(now + self.valid),
        });
        (200, keys.to_string())
    }

    fn sts(&self, request: &Request, now: SystemTime) -> (u16, String) {
        let refused = |status: u16, code: &str, text: &str| {
            let error = format!(
                "<Error><Type>Sender</Type><Code>{code}</Code><Message>{text}</Message></Error>"
            );
            (
                status,
                format!(
                    "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">{error}<RequestId>r-1</RequestId></ErrorResponse>"
                ),
            )
        };
        if let Some((status, code, text)) = &self.refusal {
            return refused(*status, code, text);
        }
        let verifier =
            Verifier { credentials: &self.caller, region: "us-east-1", service: "sts", now };
        if let Err(refusal) = verifier.check(request) {
            let code = if refusal.code == "InvalidSignatureException" {
                "SignatureDoesNotMatch"
            } else {
                refusal.code
            };
            return refused(403, code, &refusal.message);
        }
        let body = String::from_utf8_lossy(&request.body);
        if !body.contains("Action=AssumeRole&") || !body.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A") {
            return refused(400, "ValidationError", "no such action");
        }
        let Credentials { access_key_id, secret_access_key, session_token } = &self.gives;
        let keys = format!(
            "<AccessKeyId>{access_key_id}</AccessKeyId><SecretAccessKey>{secret_access_key}</SecretAccessKey><SessionToken>{}</SessionToken>\
             <Expiration>{}</Expiration>",
            session_token.as_deref().unwrap_or_default(),
            iso_millis(now + self.valid),
        );
        (
            200,
            format!(
                "<AssumeRoleResponse><AssumeRoleResult><Credentials>{keys}</Credentials></AssumeRoleResult></AssumeRoleResponse>"
            ),
        )
    }
}
