//! `--check`, for people: are the settings right, are there credentials, does Kinesis take a record? Each with what to mend.
//!
//! One record goes to the stream: an event of type `kinesis-telemetry.check`. What is said is no log line, so AWS's own words may be in it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::epoch_ms;
use crate::config::{Config, PREFIX, Problem};
use crate::deadline::{Deadline, Limit};
use crate::dispatch::packer::Packer;
use crate::kinesis::batch::Request;
use crate::kinesis::credentials::Source;
use crate::kinesis::endpoint::Stream;
use crate::kinesis::put_records::{Client, Failure, RecordOutcome, Remedy};
use crate::kinesis::sts::FAILED;
use crate::ledger::Ledger;
use crate::sandbox::Sandbox;

/// The type of the event that is sent.
const CHECK_EVENT: &str = "kinesis-telemetry.check";
/// All calls together.
const TIME: Duration = Duration::from_secs(10);
/// For throttling and the like.
const TRIES: u32 = 3;

/// What was found, a line each, and whether telemetry would arrive.
#[derive(Debug, Default)]
pub struct Report {
    /// For a terminal; ends in a line end.
    pub text: String,
    /// Nothing is wrong that keeps telemetry from arriving.
    pub good: bool,
}

impl Report {
    fn line(&mut self, mark: &str, what: &str, text: &str) {
        let _ = writeln!(self.text, "{mark:<6}{what}: {text}");
    }

    fn right(&mut self, what: &str, text: &str) {
        self.line("ok", what, text);
    }

    fn wrong(&mut self, what: &str, text: &str, mend: &str) {
        self.good = false;
        self.line("WRONG", what, text);
        let _ = writeln!(self.text, "      mend: {mend}");
    }
}

/// Looks at the settings, finds credentials, and calls Kinesis. `unknown`: variables with our prefix that are no setting.
#[must_use]
pub fn run(config: Result<Config, Vec<Problem>>, unknown: &[String]) -> Report {
    let mut report = Report { good: true, ..Report::default() };
    for name in unknown {
        report.line("note", "settings", &format!("{name} is no setting; see --help"));
    }
    match config {
        Ok(config) => check(&config, &mut report),
        Err(problems) => {
            for problem in problems {
                report.wrong("settings", &problem.to_string(), "set this variable as allowed, or unset it");
            }
        }
    }
    let last = if report.good { "All is well: telemetry would arrive." } else { "Telemetry would not arrive." };
    let _ = writeln!(report.text, "{last}");
    report
}

fn check(config: &Config, report: &mut Report) {
    report.right("settings", &format!("stream {}, region {}, {}", config.stream.member().1, config.endpoint.region(), config.endpoint.url()));
    if let Some((name, _)) = config.way.proxies.of(config.endpoint.url()) {
        report.right("proxy", &format!("Kinesis is called through the one in {name}"));
    }
    match &config.credentials {
        Source::Environment(_) => report.right("credentials", "from the environment"),
        Source::Container(_) => report.right("credentials", "from the container endpoint, asked below"),
        Source::Nowhere => {
            let mend = "a function has them from its role; elsewhere set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, \
                        AWS_SESSION_TOKEN (`aws configure export-credentials --format env` prints them)";
            return report.wrong("credentials", "there are none", mend);
        }
    }
    let sandbox = Arc::new(Sandbox::default());
    let mut client = Client::new(config, Arc::clone(&sandbox));
    let sent = send(config, &mut client, sandbox);
    if client.skew_seconds() != 0 {
        let (seconds, side) = (client.skew_seconds().unsigned_abs(), if client.skew_seconds() > 0 { "behind" } else { "ahead of" });
        let text = format!("this machine's is {seconds} seconds {side} AWS's; the extension corrects for that by itself, but set the clock right");
        report.line("note", "clock", &text);
    }
    if let (Some(role), true) = (&config.role, sent.as_ref().err().is_none_or(|failure| !failure.code.starts_with(FAILED))) {
        report.right("role", &format!("{} is assumed", role.arn));
    }
    match sent {
        Ok(()) => report.right("Kinesis", "one record was taken"),
        Err(failure) => {
            let what = if failure.code.starts_with(FAILED) { "role" } else { "Kinesis" };
            let words = failure.detail.as_deref().and_then(|words| words.lines().next()).unwrap_or_default();
            let words: String = words.chars().filter(|c| !c.is_control()).take(300).collect();
            let words = if words.is_empty() { words } else { format!(" (AWS says: {words})") };
            report.wrong(what, &format!("{failure}{words}"), &mend(config, &failure));
        }
    }
}

/// One small record, as the settings pack it.
fn send(config: &Config, client: &mut Client, sandbox: Arc<Sandbox>) -> Result<(), Failure> {
    let deadline = Deadline::after(Instant::now(), TIME, Limit::Check);
    let mut packer = Packer::new(config, sandbox, Arc::new(Ledger::default()));
    let mut request = Request::new(packer.limits());
    packer.internal_event(&mut request, CHECK_EVENT, "{}", "check", epoch_ms(SystemTime::now()));
    let mut tries = 0;
    loop {
        tries += 1;
        let failure = match client.put(&mut request, &deadline) {
            Ok(outcomes) => match outcomes.into_iter().find(|outcome| *outcome != RecordOutcome::Taken) {
                Some(RecordOutcome::Failed(code)) => refused(code),
                _ => return Ok(()),
            },
            Err(failure) => failure,
        };
        let again = matches!(failure.remedy, Remedy::Throttled | Remedy::Transient | Remedy::ClockCorrected);
        if !again || tries == TRIES {
            return Err(failure);
        }
        thread::sleep(Duration::from_millis(if failure.remedy == Remedy::ClockCorrected { 0 } else { 300 }));
    }
}

fn refused(code: String) -> Failure {
    Failure {
        code,
        message: "the record was not taken".to_owned(),
        remedy: Remedy::Throttled,
        ambiguous: false,
        stale: false,
        about_time: false,
        detail: None,
    }
}

/// Which action, variable or way a person can mend.
fn mend(config: &Config, failure: &Failure) -> String {
    let (stream, region, url) = (config.stream.member().1, config.endpoint.region(), config.endpoint.url());
    let role = config.role.as_ref().map_or("the function's role", |role| &role.arn);
    let on_stream = match &config.stream {
        Stream::Arn(arn) => arn.clone(),
        Stream::Name(name) => format!("arn:aws:kinesis:{region}:<account>:stream/{name}"),
    };
    match failure.code.as_str() {
        "AccessDeniedException" => {
            format!(
                "allow {role} the action kinesis:PutRecords on {on_stream} (and kms:GenerateDataKey on its key, if the stream is encrypted with one of your own)"
            )
        }
        code if code.starts_with("KMS") => format!("allow {role} kms:GenerateDataKey on the stream's key, and see that the key is enabled"),
        "ResourceNotFoundException" => {
            format!(
                "set {PREFIX}STREAM: there is no stream {stream} in region {region} of that account; or set AWS_REGION, or give the stream's whole ARN"
            )
        }
        "ExpiredTokenException" => "get fresh credentials: these have expired".to_owned(),
        "UnrecognizedClientException" | "InvalidClientTokenId" => {
            "set AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN: AWS does not know this pair (temporary keys need the token that came with them)".to_owned()
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" if failure.about_time => "set this machine's clock".to_owned(),
        "InvalidSignatureException" | "SignatureDoesNotMatch" => {
            "set AWS_SECRET_ACCESS_KEY: it does not belong to AWS_ACCESS_KEY_ID; or something on the way changes requests".to_owned()
        }
        "BadCredentials" => {
            "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN: there is a character in them that cannot be".to_owned()
        }
        "ContainerCredentials" => {
            "see AWS_CONTAINER_CREDENTIALS_FULL_URI and AWS_CONTAINER_AUTHORIZATION_TOKEN: that endpoint gives no keys".to_owned()
        }
        "AWS_CA_BUNDLE" => "set AWS_CA_BUNDLE to a readable PEM file of certificates, or unset it".to_owned(),
        "Tls" => format!(
            "set AWS_CA_BUNDLE to the certificate authority of {url} or of what intercepts TLS before it{}",
            if config.way.ca_bundle.is_some() { " (the one that is set does not fit)" } else { "" }
        ),
        "Proxy" | "ProxyRefused" => "set HTTPS_PROXY right, or except the host in NO_PROXY".to_owned(),
        "HostNotFound" | "DnsTimeout" => format!("see that {url} can be resolved from here: DNS, AWS_REGION, or a VPC endpoint for kinesis-streams"),
        "ConnectionFailed" | "ConnectTimeout" | "Timeout" | "ConnectionReset" | "Io" => {
            format!(
                "see that {url} can be reached from here: a NAT or a VPC endpoint for kinesis-streams, its security group, HTTPS_PROXY, or AWS_ENDPOINT_URL_KINESIS"
            )
        }
        "ProvisionedThroughputExceededException" | "LimitExceededException" => {
            "the stream is throttled: give it more shards, or try again later".to_owned()
        }
        "AssumeRole.AccessDenied" => format!(
            "allow the function's role sts:AssumeRole on {role}, and name it in that role's trust policy{}",
            if config.role.as_ref().is_some_and(|role| role.external_id.is_some()) { ", with the same KINESIS_TELEMETRY_EXTERNAL_ID" } else { "" }
        ),
        "AssumeRole.RegionDisabledException" => format!("activate STS for region {region} in the account's settings"),
        code if code.starts_with(FAILED) => {
            let url = config.role.as_ref().map_or("", |role| role.endpoint.url());
            format!("see {PREFIX}ROLE_ARN, the credentials, and that {url} can be reached from here")
        }
        _ => "see the code in the Kinesis API's documentation".to_owned(),
    }
}
