//! `--check`, for people: are the settings right, are there credentials, does Kinesis take a
//! record? Each with what to fix.
//!
//! One record is sent to the stream: an event of type `kinesis-telemetry.check`. What is printed is
//! no log line, so AWS's own words may be in it; but no control character, whatever an answer or a
//! variable holds. Asks and prints; owns no advice: that stands in `kinesis::error`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::epoch_ms;
use crate::config::{Config, Problem};
use crate::deadline::{Deadline, Limit};
use crate::dispatch::packer::Packer;
use crate::kinesis::client::Client;
use crate::kinesis::error::{Error, ErrorKind};
use crate::kinesis::provider::{self, CredentialsSource};
use crate::kinesis::request::Request;
use crate::kinesis::response::RecordOutcome;
use crate::lambda::filter::NOTHING_TO_SHIP;
use crate::ledger::Ledger;
use crate::sandbox::Sandbox;

/// The type of the event that is sent.
const CHECK_EVENT: &str = "kinesis-telemetry.check";
/// All calls together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For throttling and the like.
const TRIES: u32 = 3;
const RETRY_AFTER: Duration = Duration::from_millis(300);

/// What was found, a line each, and whether telemetry would arrive.
#[derive(Debug, Default)]
pub struct Report {
    /// For a terminal; ends in a line end.
    pub text: String,
    /// Nothing is wrong that keeps telemetry from arriving.
    pub good: bool,
}

impl Report {
    fn line(&mut self, mark: &str, text: &str) {
        let text: String = text.chars().filter(|c| !is_control(*c)).collect();
        let _ = writeln!(self.text, "{mark:<6}{text}");
    }

    fn ok(&mut self, what: &str, text: &str) {
        self.line("ok", &format!("{what}: {text}"));
    }

    fn note(&mut self, what: &str, text: &str) {
        self.line("note", &format!("{what}: {text}"));
    }

    fn fail(&mut self, what: &str, text: &str, fix: &str) {
        self.good = false;
        self.line("FAIL", &format!("{what}: {text}"));
        self.line("", &format!("fix: {fix}"));
    }
}

/// What changes a terminal's state or the order of what it shows.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Looks at the settings, finds credentials, and calls Kinesis. `unknown`: variables with our
/// prefix that are no setting.
#[must_use]
pub fn run(config: Result<Config, Vec<Problem>>, unknown: &[String]) -> Report {
    let mut report = Report { good: true, ..Report::default() };
    for name in unknown {
        report.note("settings", &format!("{name} is no setting; see --help"));
    }
    match config {
        Ok(config) => check(&config, &mut report),
        Err(problems) => {
            for problem in problems {
                report.fail("settings", problem.what(), problem.fix());
            }
        }
    }
    let last = if report.good {
        "OK: Kinesis accepted a test record"
    } else {
        "FAIL: telemetry would not arrive"
    };
    let _ = writeln!(report.text, "{last}");
    report
}

fn check(config: &Config, report: &mut Report) {
    let settings = &config.kinesis;
    let place = settings.place();
    if !config.lambda.ships_any() {
        report.fail("settings", NOTHING_TO_SHIP, "leave out less with KINESIS_TELEMETRY_EXCLUDE");
    }
    report.ok(
        "settings",
        &format!("stream {}, region {}, {}", place.stream, place.region, place.endpoint),
    );
    for endpoint in settings.readable_by_others() {
        let text = format!(
            "{endpoint} is called over plain http: others on the network can read telemetry \
             and the session token"
        );
        report.note("settings", &text);
    }
    if let Some((name, _)) = settings.http.proxies.of(settings.endpoint.url()) {
        report.ok("proxy", &format!("Kinesis is called through the one in {name}"));
    }
    match &settings.credentials {
        CredentialsSource::Environment(_) => report.ok("credentials", "from the environment"),
        CredentialsSource::Container(_) => {
            report.ok("credentials", "from the container endpoint, asked below")
        }
        CredentialsSource::Missing(unset) => {
            let error = provider::missing(*unset);
            return report.fail("credentials", &error.message, &error.advice(&place));
        }
    }
    let sandbox = Arc::new(Sandbox::default());
    let mut client = Client::new(settings, Arc::clone(&sandbox));
    let sent = send(config, &mut client, sandbox);
    if client.skew_seconds() != 0 {
        let (seconds, side) = (
            client.skew_seconds().unsigned_abs(),
            if client.skew_seconds() > 0 { "behind" } else { "ahead of" },
        );
        let text = format!(
            "this machine's is {seconds} seconds {side} AWS's; the extension corrects for that by \
             itself, but set the clock right"
        );
        report.note("clock", &text);
    }
    if client.has_assumed_role() {
        report.ok("role", &format!("{} is assumed", place.role.unwrap_or_default()));
    }
    match sent {
        Ok(()) => report.ok("Kinesis", "one record was taken"),
        Err(error) => {
            let words: String =
                error.detail.iter().flat_map(|words| words.lines().next()).collect();
            let words: String =
                words.chars().filter(|c| *c == ' ' || c.is_ascii_graphic()).take(300).collect();
            let words = if words.is_empty() { words } else { format!(" (AWS says: {words})") };
            report.fail(
                error.step().map_or("Kinesis", what),
                &format!("{error}{words}"),
                &client.advice(&error),
            );
        }
    }
}

fn what(step: &str) -> &str {
    if step == crate::kinesis::error::ASSUME_ROLE { "role" } else { "credentials" }
}

/// One small record, as the settings pack it.
fn send(config: &Config, client: &mut Client, sandbox: Arc<Sandbox>) -> Result<(), Error> {
    let deadline = Deadline::after(Instant::now(), TIMEOUT, Limit::Check);
    let mut packer = Packer::new(
        &config.dispatch,
        &config.kinesis.records,
        sandbox,
        Arc::new(Ledger::default()),
    );
    let mut request = Request::new(packer.limits());
    packer.internal_event(&mut request, CHECK_EVENT, "{}", "check", epoch_ms(SystemTime::now()));
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match client.put(&mut request, &deadline) {
            Ok(outcomes) => {
                match outcomes.into_iter().find(|outcome| *outcome != RecordOutcome::Taken) {
                    Some(RecordOutcome::Failed { code, kind }) => {
                        Error { kind, ..Error::new(&code, "the record was not taken") }
                    }
                    _ => return Ok(()),
                }
            }
            Err(error) => error,
        };
        let may_pass = matches!(error.kind, ErrorKind::Throttled | ErrorKind::Transient);
        if tries == TRIES || !(may_pass || error.retry_now) {
            return Err(error);
        }
        if !error.retry_now {
            thread::sleep(RETRY_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// `--check` with these variables; nobody listens where they lead.
    fn checked(variables: &[(&str, &str)]) -> Report {
        run(config::read(&variables.iter().copied().collect()).1, &[])
    }

    const BASE: [(&str, &str); 5] = [
        ("KINESIS_TELEMETRY_STREAM", "telemetry"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "CANARY/secret"),
        ("AWS_SESSION_TOKEN", "CANARY-token"),
    ];

    #[test]
    fn nothing_that_is_printed_holds_a_control_character() {
        let mut report = Report::default();
        report.fail("settings", "a\u{1b}[31m\r\nok    Kinesis: forged\u{202e}", "b\u{9b}c\u{7}");
        assert_eq!(report.text, "FAIL  settings: a[31mok    Kinesis: forged\n      fix: bc\n");
    }

    /// Well-formed or not, no variable that can hold a secret is ever shown, in a report, a problem
    /// or a `Debug` output.
    #[test]
    fn no_variable_that_can_hold_a_secret_is_shown() {
        let closed = "127.0.0.1:9";
        let values: &[(&str, &[&str])] = &[
            ("AWS_SECRET_ACCESS_KEY", &["CANARY", "CANARY\n", "CANARY\u{1b}[0m"]),
            ("AWS_SESSION_TOKEN", &["CANARY", "CANARY\r\nx: y"]),
            (
                "AWS_ENDPOINT_URL",
                &[
                    "https://CANARY:CANARY@host/",
                    "CANARY",
                    "ftp://CANARY",
                    "http://127.0.0.1:9/CANARY",
                    "http://127.0.0.1:9/?CANARY",
                ],
            ),
            (
                "AWS_ENDPOINT_URL_KINESIS",
                &["https://user:CANARY@host/", "CANARY", "http://127.0.0.1:9/CANARY/"],
            ),
            (
                "AWS_ENDPOINT_URL_STS",
                &["https://user:CANARY@host/", "CANARY", "http://127.0.0.1:9/CANARY/"],
            ),
            (
                "HTTPS_PROXY",
                &[
                    "http://user:CANARY@127.0.0.1:9",
                    "socks5://user:CANARY@127.0.0.1:9",
                    "CANARY CANARY",
                ],
            ),
            ("https_proxy", &["http://user:CANARY@127.0.0.1:9", "socks4://CANARY"]),
            ("ALL_PROXY", &["http://user:CANARY@127.0.0.1:9", "CANARY CANARY"]),
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                &["http://10.0.0.1/CANARY", "CANARY", "http://127.0.0.1:9/?token=CANARY"],
            ),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", &["CANARY", "@CANARY/", "/ CANARY"]),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", &["CANARY", "CANARY\r\nx: y", "CANARY\u{1}"]),
            ("KINESIS_TELEMETRY_EXTERNAL_ID", &["CANARY", "CANARY CANARY", "C"]),
        ];
        let endpoint = format!("http://{closed}");
        let role = ("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws:iam::123456789012:role/writer");
        // Each in a thread of its own: they wait for closed ports.
        thread::scope(|scope| {
            for (name, value) in values
                .iter()
                .flat_map(|(name, values)| values.iter().map(move |value| (*name, *value)))
            {
                let endpoint = &endpoint;
                scope.spawn(move || {
                    for with_role in [false, true] {
                        let container = name.starts_with("AWS_CONTAINER");
                        let mut variables = vec![(name, value)];
                        variables.extend(BASE.iter().filter(|(base, _)| {
                            *base != name && !(container && base.starts_with("AWS_ACCESS"))
                        }));
                        variables.extend(with_role.then_some(role));
                        if !name.to_ascii_uppercase().ends_with("PROXY")
                            && !name.starts_with("AWS_ENDPOINT_URL")
                        {
                            variables.push(("AWS_ENDPOINT_URL", endpoint));
                        }
                        if name == "AWS_CONTAINER_AUTHORIZATION_TOKEN" {
                            variables.push((
                                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                                "http://127.0.0.1:9/",
                            ));
                        }
                        assert_not_shown(name, value, &variables);
                    }
                });
            }
        });
    }

    fn assert_not_shown(name: &str, value: &str, variables: &[(&str, &str)]) {
        let config = config::read(&variables.iter().copied().collect()).1;
        // A legal URL's path is used as it is set; `Debug` of the settings shows it, and is printed
        // nowhere.
        let only_a_path = name.starts_with("AWS_ENDPOINT_URL") && config.is_ok();
        let shown = format!("{config:?}");
        assert!(only_a_path || !shown.contains("CANARY"), "{name}={value:?}: {shown}");
        let report = checked(variables);
        assert!(
            !report.good
                && !report.text.contains(['\u{1b}', '\u{1}'])
                && !report.text.contains("CANARY"),
            "{name}={value:?}: {}",
            report.text
        );
    }
}
