//! One PutRecords call: signed, sent, and one outcome for each record.
//!
//! One call is one request to Kinesis. It repeats nothing by itself: an [`Error`] says whether its
//! cause is removed, so that the caller, who counts requests and errors, sends again. Runs on the
//! dispatcher's thread; only [`InterruptHandle`] is for others.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Settings;
use super::clock_skew::ClockSkew;
use super::error::{Error, ErrorKind, describe_answer, read_error, refuses_cbor};
use super::http::{HttpClient, Response};
pub use super::interrupt::InterruptHandle;
use super::provider::CredentialsProvider;
use super::request::Request;
use super::response::{RecordOutcome, read_outcomes};
use super::sign;
use super::wire::Wire;
use crate::deadline::Deadline;
use crate::log;
use crate::sandbox::Sandbox;

/// No call is worth beginning with less time left than this.
pub const MIN_TIME_LEFT: Duration = Duration::from_millis(10);

/// Sends PutRecords requests to one stream.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    provider: CredentialsProvider,
    http: Option<HttpClient>,
    skew: ClockSkew,
    removed: RemovedCauses,
    sandbox: Arc<Sandbox>,
    restores: Restores,
    interrupts: InterruptHandle,
}

/// Which causes of errors were removed since Kinesis last took something. If one comes again,
/// nothing is sent at once for it, whatever the answer says.
#[derive(Debug, Default)]
struct RemovedCauses {
    refused_credentials: bool,
    wrong_time: bool,
}

impl Client {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(settings: &Settings, sandbox: Arc<Sandbox>) -> Client {
        let interrupts = InterruptHandle::default();
        let Settings { credentials, role, http, snap_start, .. } = settings.clone();
        Client {
            settings: settings.clone(),
            provider: CredentialsProvider::new(credentials, role, http, interrupts.clone()),
            http: None,
            skew: ClockSkew::default(),
            removed: RemovedCauses::default(),
            restores: Restores::new(snap_start, Arc::clone(&sandbox)),
            sandbox,
            interrupts,
        }
    }

    /// Sends `request` once and returns what became of each of its records, in their order. It is
    /// over at `deadline`, whatever the network does.
    ///
    /// # Errors
    /// An [`Error`] when the request failed as a whole or its answer cannot be trusted.
    pub fn put(
        &mut self,
        request: &mut Request,
        deadline: &Deadline,
    ) -> Result<Vec<RecordOutcome>, Error> {
        self.begin();
        let result = self.put_once(request, deadline);
        match result {
            Ok(outcomes) => {
                if outcomes.contains(&RecordOutcome::Taken) {
                    self.removed = RemovedCauses::default();
                }
                Ok(outcomes)
            }
            Err(error) => {
                Err(Error { retry_now: error.retry_now || self.remove_cause(&error), ..error })
            }
        }
    }

    /// Whether [`Client::prepare`] would have nothing to do. Costs a look at the connection, and no
    /// more.
    pub fn is_ready(&mut self) -> bool {
        self.notice_restore();
        self.provider.is_current(self.skew.now())
            && self.http.as_ref().is_some_and(HttpClient::is_ready)
    }

    /// Opens a connection, unless there is one that is alive, and fetches credentials that are due.
    /// Nothing is requested of Kinesis.
    ///
    /// # Errors
    /// What the next call would fail with.
    pub fn prepare(&mut self, deadline: &Deadline) -> Result<(), Error> {
        self.begin();
        self.provider.credentials(&mut self.skew, deadline)?;
        let url = self.settings.endpoint.url().to_owned();
        self.http()?.prepare(&url, deadline)
    }

    /// Closes the connection if it was idle for longer than `idle`, by either clock: the next call
    /// opens a new one. For when there is no time to find out that it has died.
    pub fn disconnect(&mut self, idle: Duration) {
        if let Some(http) = &self.http {
            http.disconnect(idle);
        }
    }

    /// The sandbox ends: credentials that could not be fetched a moment ago may be asked for again.
    pub fn try_anew(&mut self) {
        self.provider.try_anew();
    }

    /// With it another thread ends a call that it does not want to wait for.
    #[must_use]
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.interrupts.clone()
    }

    /// The generation of the last call. An interrupt names the one that it is meant for.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.interrupts.generation()
    }

    /// What a person can do about an error of this client's.
    #[must_use]
    pub fn advice(&self, error: &Error) -> String {
        error.advice(&self.settings.place())
    }

    /// Seconds that AWS's clock was found to be ahead of the local one; 0 while it was near enough.
    #[must_use]
    pub fn skew_seconds(&self) -> i64 {
        self.skew.seconds()
    }

    /// Whether the role of the settings is assumed.
    #[must_use]
    pub fn has_assumed_role(&self) -> bool {
        self.provider.has_assumed()
    }

    fn begin(&mut self) {
        self.interrupts.begin();
        self.notice_restore();
    }

    fn notice_restore(&mut self) {
        if self.restores.happened() {
            // Sockets are dead, TLS sessions are known to other sandboxes, and credentials may be
            // old.
            self.http = None;
            self.provider.invalidate();
        }
    }

    fn put_once(
        &mut self,
        request: &mut Request,
        deadline: &Deadline,
    ) -> Result<Vec<RecordOutcome>, Error> {
        if self.sandbox.refuses_cbor() || self.settings.records.wire == Wire::Json {
            // An earlier process, or this one before it knew, may have packed it otherwise.
            request.convert(Wire::Json);
        }
        let sent = request.len();
        let hash = request.finish(&self.settings.stream);
        let wire = request.wire();
        let begun = Instant::now();
        let response = self.post(wire, request.body(), hash, deadline);
        if log::enabled(log::Level::Debug) {
            let came = response.as_ref().map(|r| describe_answer(r.status, &r.headers));
            log::debug!(
                "request",
                "PutRecords of {} events in {sent} records, {} bytes, took {} ms: {}",
                request.events(),
                request.body().len(),
                begun.elapsed().as_millis(),
                came.unwrap_or_else(ToString::to_string)
            );
        }
        let Response { status, headers, body } = response?;
        let result = if status == 200 {
            read_outcomes(&body, sent)
        } else {
            Err(read_error(status, &headers, &body))
        };
        if wire == Wire::Cbor && refuses_cbor(status, &body, result.as_ref().err()) {
            return self.fall_back(status, result);
        }
        if result.as_ref().is_err_and(|error| error.kind == ErrorKind::ClockSkew) {
            self.skew.learn(&headers);
        }
        result
    }

    /// From now on JSON is sent. If the records were not taken, they are sent again at once: the
    /// form was refused, not what they hold.
    fn fall_back(
        &self,
        status: u16,
        result: Result<Vec<RecordOutcome>, Error>,
    ) -> Result<Vec<RecordOutcome>, Error> {
        self.sandbox.cbor_refused();
        let why = result.as_ref().map_or_else(|error| error.code.as_str(), |_| "an answer in JSON");
        log::warn!(
            "wire",
            "the endpoint does not take CBOR (HTTP {status}, {why}); \
             this sandbox sends JSON from now on"
        );
        result.map_err(|error| Error { kind: ErrorKind::Transient, retry_now: true, ..error })
    }

    fn post(
        &mut self,
        wire: Wire,
        body: &[u8],
        hash: String,
        deadline: &Deadline,
    ) -> Result<Response, Error> {
        let credentials = self.provider.credentials(&mut self.skew, deadline)?;
        let endpoint = &self.settings.endpoint;
        let scope = sign::Scope {
            url: endpoint.url(),
            region: endpoint.region(),
            service: "kinesis",
            time: self.skew.now(),
        };
        let headers = [
            ("content-type", wire.content_type()),
            ("x-amz-target", "Kinesis_20131202.PutRecords"),
        ];
        let post = sign::post(&scope, &credentials, &headers, hash)?;
        self.http()?.send(post, body, deadline)
    }

    fn http(&mut self) -> Result<&mut HttpClient, Error> {
        let http = match self.http.take() {
            Some(http) => http,
            None => self.settings.http.client(self.settings.endpoint.url(), &self.interrupts)?,
        };
        Ok(self.http.insert(http))
    }

    /// Removes the cause of an error, if it can be removed. Returns whether a try at once is worth
    /// it: once for each cause, until Kinesis takes something again.
    fn remove_cause(&mut self, error: &Error) -> bool {
        match error.kind {
            ErrorKind::Credentials => {
                self.provider.refused(error)
                    && !std::mem::replace(&mut self.removed.refused_credentials, true)
            }
            // The clock is corrected by now; or it is right, and the signature had grown old in a
            // freeze. The next one is new.
            ErrorKind::ClockSkew => !std::mem::replace(&mut self.removed.wrong_time, true),
            _ => false,
        }
    }
}

/// Whether the sandbox was restored from a snapshot since the last look: Lambda says so, or the
/// wall clock has jumped. Only under SnapStart.
#[derive(Debug)]
struct Restores {
    snap_start: bool,
    sandbox: Arc<Sandbox>,
    known: u16,
    seen: (Instant, SystemTime),
}

impl Restores {
    /// A clock that is being set right moves by less.
    const JUMP: Duration = Duration::from_secs(5);

    fn new(snap_start: bool, sandbox: Arc<Sandbox>) -> Restores {
        Restores { snap_start, sandbox, known: 0, seen: (Instant::now(), SystemTime::now()) }
    }

    fn happened(&mut self) -> bool {
        if !self.snap_start {
            return false;
        }
        let now = (Instant::now(), SystemTime::now());
        let (elapsed, by_the_wall) =
            (now.0.saturating_duration_since(self.seen.0), now.1.duration_since(self.seen.1));
        self.seen = now;
        let jumped = by_the_wall.map_or(true, |time| time.abs_diff(elapsed) > Self::JUMP);
        let known = std::mem::replace(&mut self.known, self.sandbox.restores());
        jumped || known != self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_is_told_by_lambda_or_by_a_clock_that_jumped() {
        let sandbox = Arc::new(Sandbox::default());
        let mut elsewhere = Restores::new(false, Arc::clone(&sandbox));
        let mut restores = Restores::new(true, Arc::clone(&sandbox));
        assert!(!restores.happened());
        sandbox.restored();
        assert!(restores.happened() && !restores.happened());
        restores.seen.1 -= Duration::from_secs(60);
        assert!(restores.happened() && !restores.happened());
        restores.seen.1 += Duration::from_secs(60);
        assert!(restores.happened() && !restores.happened());
        assert!(!elsewhere.happened());
    }
}
