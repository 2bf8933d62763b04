//! How the simulator is set up: [`LambdaBuilder`], and what becomes of it when it starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::events::Identity;
use super::{Delivery, Lambda};
use crate::clock::{iso_millis, unix_millis};
use crate::kinesis::{Credentials, Kinesis};

/// Every setting of the extension begins with this.
pub const SETTING_PREFIX: &str = "KINESIS_TELEMETRY_";

/// What the Extensions API and the Telemetry API answer instead of the truth.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApiFaults {
    pub(crate) register: Option<u16>,
    pub(crate) subscribe: Option<u16>,
    pub(crate) refused_schema: Option<String>,
    /// The number of the call to `next`, from 1, and the status.
    pub(crate) next: Vec<(usize, u16)>,
}

/// What AWS leaves open, decided in the harder way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leeway {
    pub(crate) keep_first_subscription: bool,
    pub(crate) deadline_offset_ms: i64,
    pub(crate) relative_deadlines: bool,
    /// How long after the crash; `Some(None)` is never.
    pub(crate) runtime_done_of_crash: Option<Option<Duration>>,
    pub(crate) runtime_share_of_shutdown: Duration,
    pub(crate) poster_without_retry: bool,
    pub(crate) oom_of_runtime: bool,
    pub(crate) suppressed_init_counts: bool,
}

impl Leeway {
    /// `deadlineMs` of something that ends in `left`.
    pub(crate) fn deadline_ms(&self, left: Duration) -> i64 {
        let absolute = if self.relative_deadlines { 0 } else { unix_millis(SystemTime::now()) };
        (absolute
            + i64::try_from(left.as_millis()).unwrap_or(i64::MAX / 2)
            + self.deadline_offset_ms)
            .max(0)
    }
}

/// Fixed when the simulator starts.
pub(crate) struct Setup {
    pub(crate) binary: PathBuf,
    pub(crate) runner: Vec<String>,
    pub(crate) name: String,
    pub(crate) handler: String,
    pub(crate) account: String,
    pub(crate) identity: Identity,
    pub(crate) environment: Vec<(String, String)>,
    /// The variable that is to name a directory of the sandbox's own, in the place of /tmp.
    pub(crate) tmp_variable: Option<String>,
    pub(crate) json_logs: bool,
    pub(crate) freeze: bool,
    pub(crate) freeze_after_init: bool,
    pub(crate) timeout: Duration,
    pub(crate) init_limit: Duration,
    pub(crate) init_work: Duration,
    pub(crate) init_lines: Vec<String>,
    pub(crate) shutdown_limit: Duration,
    pub(crate) telemetry_room: usize,
    pub(crate) post_limit: Duration,
    pub(crate) feed_back: bool,
    pub(crate) delivery: Delivery,
    pub(crate) faults: ApiFaults,
    pub(crate) leeway: Leeway,
    pub(crate) in_flight: Option<Arc<dyn Fn() -> usize + Send + Sync>>,
}

/// How the sandbox is to be; [`Lambda::builder`] makes one.
pub struct LambdaBuilder {
    pub(crate) setup: Setup,
    credentials: Option<Credentials>,
    region: String,
}

impl LambdaBuilder {
    pub(crate) fn new(binary: &Path) -> Self {
        let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let identity = Identity {
            function: "orders".to_owned(),
            version: "$LATEST".to_owned(),
            arn: String::new(),
            log_stream: String::new(),
            initialization: "on-demand".to_owned(),
            memory_mb: 128,
            managed: false,
        };
        let setup = Setup {
            binary: binary.to_owned(),
            runner: Vec::new(),
            name,
            handler: "app.handler".to_owned(),
            account: "123456789012".to_owned(),
            identity,
            environment: Vec::new(),
            tmp_variable: None,
            json_logs: false,
            freeze: true,
            freeze_after_init: false,
            timeout: Duration::from_secs(3),
            init_limit: Duration::from_secs(10),
            init_work: Duration::ZERO,
            init_lines: Vec::new(),
            shutdown_limit: Duration::from_secs(2),
            telemetry_room: 16 * 1_048_576,
            post_limit: Duration::from_secs(10),
            feed_back: true,
            delivery: Delivery::default(),
            faults: ApiFaults::default(),
            leeway: Leeway::default(),
            in_flight: None,
        };
        Self { setup, credentials: Some(Credentials::default()), region: "us-east-1".to_owned() }
    }

    /// Where the extension is to write: endpoint, stream, keys, region, and the authority when it speaks TLS. Calls
    /// to `next` are then also held against its requests in flight.
    #[must_use]
    pub fn kinesis(mut self, kinesis: &Kinesis) -> Self {
        self.setup.in_flight = Some(kinesis.probe());
        self.credentials = Some(kinesis.credentials().clone());
        kinesis.region().clone_into(&mut self.region);
        let mut this = self
            .env("AWS_ENDPOINT_URL_KINESIS", &kinesis.url())
            .setting("STREAM", kinesis.stream_name());
        if let Some(bundle) = kinesis.ca_bundle() {
            this = this.env("AWS_CA_BUNDLE", &bundle.to_string_lossy());
        }
        this
    }

    /// A variable of the extension's environment. The last value given wins; an empty one is passed as empty.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.setup.environment.retain(|(key, _)| key != name);
        self.setup.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A setting of the extension, without its prefix: `setting("FLUSH", "end")`.
    #[must_use]
    pub fn setting(self, name: &str, value: &str) -> Self {
        self.env(&format!("{SETTING_PREFIX}{name}"), value)
    }

    /// A variable that is not to be there, whatever else was asked for.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.setup.environment.retain(|(key, _)| key != name);
        self
    }

    /// This variable names a directory of the sandbox's own, kept over resets: see [`Lambda::tmp`].
    #[must_use]
    pub fn tmp_in(mut self, variable: &str) -> Self {
        self.setup.tmp_variable = Some(variable.to_owned());
        self
    }

    /// No key variables, as under SnapStart.
    #[must_use]
    pub fn without_credentials(mut self) -> Self {
        self.credentials = None;
        self
    }

    /// What starts the binary, before its path: `["qemu-aarch64-static"]`.
    #[must_use]
    pub fn runner(mut self, command: &[&str]) -> Self {
        self.setup.runner = command.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// The file's name under `extensions/`, and so the name to register; the binary's own unless set.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.setup.name);
        self
    }

    /// The function's name and version; `orders` and `$LATEST` unless set.
    #[must_use]
    pub fn function(mut self, name: &str, version: &str) -> Self {
        name.clone_into(&mut self.setup.identity.function);
        version.clone_into(&mut self.setup.identity.version);
        self
    }

    /// The function's memory in MB; 128 unless set.
    #[must_use]
    pub fn memory(mut self, mb: u32) -> Self {
        self.setup.identity.memory_mb = mb;
        self
    }

    /// The account; `123456789012` unless set. An empty one is left out of the answer to `register`.
    #[must_use]
    pub fn account(mut self, account: &str) -> Self {
        account.clone_into(&mut self.setup.account);
        self
    }

    /// The ARN that invocations carry; made from the other names unless set.
    #[must_use]
    pub fn arn(mut self, arn: &str) -> Self {
        arn.clone_into(&mut self.setup.identity.arn);
        self
    }

    /// The handler; `app.handler` unless set.
    #[must_use]
    pub fn handler(mut self, handler: &str) -> Self {
        handler.clone_into(&mut self.setup.handler);
        self
    }

    /// `AWS_LAMBDA_INITIALIZATION_TYPE`; `on-demand` unless set.
    #[must_use]
    pub fn initialization_type(mut self, kind: &str) -> Self {
        kind.clone_into(&mut self.setup.identity.initialization);
        self
    }

    /// Managed Instances: SHUTDOWN only, overlapping invocations, no freeze, no `runtimeDone`, JSON logs.
    #[must_use]
    pub fn managed_instances(mut self) -> Self {
        self.setup.identity.managed = true;
        self.setup.freeze = false;
        self.json_logs().initialization_type("lambda-managed-instances")
    }

    /// The function's log format is JSON: text lines arrive wrapped in an object, as Lambda does.
    #[must_use]
    pub fn json_logs(mut self) -> Self {
        self.setup.json_logs = true;
        self
    }

    /// Nothing is frozen between invocations.
    #[must_use]
    pub fn without_freeze(mut self) -> Self {
        self.setup.freeze = false;
        self
    }

    /// The sandbox freezes after init too, as one that Lambda made ahead of time.
    #[must_use]
    pub fn freeze_after_init(mut self) -> Self {
        self.setup.freeze_after_init = true;
        self
    }

    /// The function's time-out; 3 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.setup.timeout = timeout;
        self
    }

    /// How long init may take; 10 s unless set.
    #[must_use]
    pub fn init_limit(mut self, limit: Duration) -> Self {
        self.setup.init_limit = limit;
        self
    }

    /// How long the runtime's own init takes, and the lines that it prints; nothing unless set.
    #[must_use]
    pub fn runtime_init(mut self, takes: Duration, lines: &[&str]) -> Self {
        self.setup.init_work = takes;
        self.setup.init_lines = lines.iter().map(|line| (*line).to_owned()).collect();
        self
    }

    /// The time between SHUTDOWN and SIGKILL; 2 s unless set.
    #[must_use]
    pub fn shutdown_limit(mut self, limit: Duration) -> Self {
        self.setup.shutdown_limit = limit;
        self
    }

    /// Bytes of events that Lambda keeps for a slow subscriber before it drops; 16 MiB unless set.
    #[must_use]
    pub fn telemetry_room(mut self, bytes: usize) -> Self {
        self.setup.telemetry_room = bytes;
        self
    }

    /// How long Lambda waits for the answer to a POST, frozen time left out; 10 s unless set.
    #[must_use]
    pub fn post_limit(mut self, limit: Duration) -> Self {
        self.setup.post_limit = limit;
        self
    }

    /// What the extension prints does not come back to it as `extension` telemetry.
    #[must_use]
    pub fn without_feedback(mut self) -> Self {
        self.setup.feed_back = false;
        self
    }

    /// How batches are posted; changed at runtime by [`Lambda::deliver`].
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.setup.delivery = delivery;
        self
    }

    /// After a reset the subscription of the first process stays in force, path and all; that of the next is answered 200 and does nothing.
    #[must_use]
    pub fn keep_first_subscription(mut self) -> Self {
        self.setup.leeway.keep_first_subscription = true;
        self
    }

    /// Telemetry is posted to `/`, whatever path was subscribed.
    #[must_use]
    pub fn drop_path(mut self) -> Self {
        self.setup.delivery.path = Some("/".to_owned());
        self
    }

    /// A batch whose POST fails or is refused is dropped, and `platform.logsDropped` says so.
    #[must_use]
    pub fn poster_without_retry(mut self) -> Self {
        self.setup.leeway.poster_without_retry = true;
        self
    }

    /// Every `deadlineMs` is off by so many milliseconds, as where the sandbox's clock is fast (negative) or slow.
    #[must_use]
    pub fn deadline_offset(mut self, millis: i64) -> Self {
        self.setup.leeway.deadline_offset_ms = millis;
        self
    }

    /// Every `deadlineMs` is the time left, not a date.
    #[must_use]
    pub fn relative_deadlines(mut self) -> Self {
        self.setup.leeway.relative_deadlines = true;
        self
    }

    /// No `platform.runtimeDone` is generated for an invocation that crashes.
    #[must_use]
    pub fn crash_without_runtime_done(mut self) -> Self {
        self.setup.leeway.runtime_done_of_crash = Some(None);
        self
    }

    /// The `platform.runtimeDone` of an invocation that crashes comes that much later, while Lambda waits for the process to end.
    #[must_use]
    pub fn crash_with_late_runtime_done(mut self, after: Duration) -> Self {
        self.setup.leeway.runtime_done_of_crash = Some(Some(after));
        self
    }

    /// The runtime takes so much of the SHUTDOWN window before the extension is told; Lambda allows 30 %.
    #[must_use]
    pub fn runtime_share_of_shutdown(mut self, share: Duration) -> Self {
        self.setup.leeway.runtime_share_of_shutdown = share;
        self
    }

    /// When memory runs out, the kernel kills the runtime alone: a reset follows, with SHUTDOWN.
    #[must_use]
    pub fn oom_of_runtime(mut self) -> Self {
        self.setup.leeway.oom_of_runtime = true;
        self
    }

    /// The init after a reset runs on the time-out of the invocation that it is for.
    #[must_use]
    pub fn suppressed_init_counts(mut self) -> Self {
        self.setup.leeway.suppressed_init_counts = true;
        self
    }

    /// `register` answers with this status: 403 or 500.
    #[must_use]
    pub fn register_answers(mut self, status: u16) -> Self {
        self.setup.faults.register = Some(status);
        self
    }

    /// `PUT /telemetry` answers with this status: 202, 400, 403, 404 or 500.
    #[must_use]
    pub fn subscribe_answers(mut self, status: u16) -> Self {
        self.setup.faults.subscribe = Some(status);
        self
    }

    /// `PUT /telemetry` answers 400 to this schema version.
    #[must_use]
    pub fn refuse_schema(mut self, version: &str) -> Self {
        self.setup.faults.refused_schema = Some(version.to_owned());
        self
    }

    /// The `nth` call to `next` (from 1, over the sandbox's whole life) answers with this status: 403 or 500.
    #[must_use]
    pub fn next_answers(mut self, nth: usize, status: u16) -> Self {
        self.setup.faults.next.push((nth, status));
        self
    }

    /// Starts the APIs. The extension is started by [`Lambda::init`], or by the first invocation.
    ///
    /// # Panics
    /// When the machine has no port, no thread or no temporary directory left.
    #[must_use]
    pub fn start(mut self) -> Lambda {
        let identity = &mut self.setup.identity;
        let day = iso_millis(SystemTime::now())[..10].replace('-', "/");
        let id = uuid::Uuid::new_v4().simple();
        identity.log_stream = format!("{day}/{}[{}]{id}", identity.function, identity.version);
        if identity.arn.is_empty() {
            let account =
                if self.setup.account.is_empty() { "012345678912" } else { &self.setup.account };
            identity.arn = format!(
                "arn:aws:lambda:{}:{account}:function:{}:live",
                self.region, identity.function
            );
        }
        self.platform_environment();
        Lambda::from_setup(self.setup)
    }

    /// What Lambda sets for an extension, and nothing else; what the caller set wins.
    fn platform_environment(&mut self) {
        let identity = &self.setup.identity;
        let mut platform = vec![
            ("AWS_REGION", self.region.clone()),
            ("AWS_DEFAULT_REGION", self.region.clone()),
            ("AWS_LAMBDA_FUNCTION_NAME", identity.function.clone()),
            ("AWS_LAMBDA_FUNCTION_VERSION", identity.version.clone()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", identity.memory_mb.to_string()),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", identity.initialization.clone()),
            (
                "AWS_LAMBDA_LOG_FORMAT",
                if self.setup.json_logs { "JSON" } else { "Text" }.to_owned(),
            ),
            ("TZ", ":UTC".to_owned()),
        ];
        if self.setup.json_logs {
            platform.push(("AWS_LAMBDA_LOG_LEVEL", "INFO".to_owned()));
        }
        if let Some(credentials) = &self.credentials {
            platform.push(("AWS_ACCESS_KEY_ID", credentials.access_key_id.clone()));
            platform.push(("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key.clone()));
            platform.extend(
                credentials.session_token.clone().map(|token| ("AWS_SESSION_TOKEN", token)),
            );
        }
        for (name, value) in platform {
            if !self.setup.environment.iter().any(|(key, _)| key == name) {
                self.setup.environment.push((name.to_owned(), value));
            }
        }
    }
}
