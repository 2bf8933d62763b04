//! Lambda's side: launches, refusals, resets, deliveries. The extensions are the floor program and small scripts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use sandbox::{
    Cut, CutForm, Delivery, Expected, Failure, Invocation, Kinesis, Lambda, LambdaBuilder, ms,
    wait_until,
};
use tempfile::TempDir;

/// Calls of the APIs from a shell: `call METHOD PATH BODY HEADERS...` prints the whole answer.
const CALL: &str = r#"#!/bin/bash
call() {
    exec 3<>"/dev/tcp/${AWS_LAMBDA_RUNTIME_API%:*}/${AWS_LAMBDA_RUNTIME_API#*:}"
    printf '%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n' "$1" "$2" "${#3}" >&3
    [[ -n "${4:-}" ]] && printf '%s\r\n' "${@:4}" >&3
    printf '\r\n%s' "$3" >&3
    local line length=0
    while IFS= read -r line <&3; do
        line="${line%$'\r'}"
        case "$line" in
            'Content-Length: '*) length="${line#*: }" ;;
            'Lambda-Extension-Identifier: '*) id="$line" ;;
            '') break ;;
        esac
        echo "$line"
    done
    read -r -N "$length" line <&3
    echo "$line"
    exec 3>&-
}
api=/2020-01-01/extension
register() { call POST "$api/register" '{"events":["INVOKE","SHUTDOWN"]}' "Lambda-Extension-Name: ${0##*/}" "$@"; }
next() { call GET "$api/event/next" '' "$id"; }
"#;

/// An extension that does what `script` says.
struct Script {
    _directory: TempDir,
    file: PathBuf,
}

impl Script {
    fn new(script: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("scripted");
        std::fs::write(&file, format!("{CALL}{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { _directory: directory, file }
    }

    fn lambda(&self) -> LambdaBuilder {
        Lambda::builder(&self.file)
    }
}

fn floor(kinesis: &Kinesis) -> LambdaBuilder {
    Lambda::builder(env!("CARGO_BIN_EXE_floor")).kinesis(kinesis)
}

fn ids_ignored(lambda: &Lambda) -> Vec<sandbox::SentEvent> {
    lambda
        .sent()
        .into_iter()
        .map(|event| sandbox::SentEvent { request_id: Expected::Any, ..event })
        .collect()
}

fn failure(lambda: &Lambda) -> Failure {
    lambda.init().unwrap_err().kind
}

#[test]
fn an_extension_that_exits_fails_init_whatever_its_code() {
    for (code, script) in [(0, "exit 0"), (3, "register; exit 3")] {
        let script = Script::new(script);
        let Failure::Crash(exit) = failure(&script.lambda().start()) else { panic!("no crash") };
        assert_eq!(exit.code, Some(code));
    }
}

#[test]
fn an_extension_that_never_asks_for_an_event_times_out() {
    let script = Script::new("register; read -t 60 < <(sleep 60)");
    assert!(
        matches!(failure(&script.lambda().init_limit(ms(400)).start()), Failure::InitTimeout(calls) if calls.len() == 1)
    );
}

#[test]
fn a_missing_binary_is_a_launch_error() {
    assert!(matches!(failure(&Lambda::builder("/nowhere/at/all").start()), Failure::Launch(_)));
}

#[test]
fn init_error_is_passed_on() {
    let script = Script::new(
        r#"register; call POST $api/init/error '' "$id" 'Lambda-Extension-Function-Error-Type: Extension.NoStream'; exit 1"#,
    );
    let lambda = script.lambda().start();
    let Failure::Reported(kind, reason, exit) = failure(&lambda) else { panic!("not reported") };
    assert_eq!(
        (kind, reason.as_str(), exit.unwrap().code),
        ("Extension.InitError", "Extension.NoStream", Some(1))
    );
    assert!(lambda.stdout().iter().any(|line| line == r#"{"status":"OK"}"#));
}

#[test]
fn the_environment_is_lambdas_and_no_more() {
    let script =
        Script::new("register; while read -r line; do echo \"$line\"; done < <(compgen -e); next");
    let kinesis = Kinesis::start();
    let lambda =
        script.lambda().kinesis(&kinesis).setting("FLUSH", "end").named("renamed.sh").start();
    lambda.init().unwrap();
    let names = lambda.stdout();
    for name in [
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "TZ",
        "KINESIS_TELEMETRY_PORT",
        "KINESIS_TELEMETRY_FLUSH",
    ] {
        assert!(names.iter().any(|line| line == name), "{name} of {names:?}");
    }
    assert!(!names.iter().any(|line| line.starts_with("CARGO")
        || line == "HOME"
        || line == "AWS_LAMBDA_LOG_GROUP_NAME"));
    assert!(names[0].starts_with("HTTP/1.1 200"), "registered under the file's name");
}

#[test]
fn refusals_in_aws_words() {
    let script = Script::new(
        r#"register; call PUT /2022-07-01/telemetry '{}' "$id"; call GET $api/event/next '' 'X: y'; call GET $api/nowhere ''; next"#,
    );
    let lambda = script.lambda().start();
    lambda.init().unwrap();
    let printed = lambda.stdout().join("\n");
    for text in [
        r#"{"errorType":"ValidationError","errorMessage":"#,
        r#"{"errorMessage":"Missing Lambda-Extension-Identifier header","errorType":"Extension.MissingExtensionIdentifier"}"#,
        "404 page not found",
    ] {
        assert!(printed.contains(text), "{text} in {printed}");
    }
    let statuses: Vec<u16> = lambda.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [200, 400, 403, 404, 0]);
}

#[test]
fn answers_that_a_test_asks_for() {
    let script = Script::new(
        r#"register; call PUT /2022-07-01/telemetry '{"schemaVersion": "2025-01-29"}' "$id"; next; next"#,
    );
    let lambda = script.lambda().subscribe_answers(202).next_answers(1, 500).start();
    lambda.init().unwrap();
    let statuses: Vec<u16> = lambda.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [200, 202, 500, 0]);
    assert!(lambda.stdout().contains(&r#"{"errorMessage":"Telemetry API is not supported","errorType":"Telemetry.NotSupported"}"#.to_owned()));

    let lambda = script.lambda().refuse_schema("2025-01-29").start();
    lambda.init().unwrap();
    assert_eq!(lambda.calls()[1].status, 400);
    let lambda = script.lambda().register_answers(500).start();
    let _ = lambda.init().unwrap_err();
    assert_eq!(lambda.calls()[0].status, 500);
}

#[test]
fn a_crash_in_an_invocation_is_an_error_of_it() {
    let script = Script::new("register; next; exit 0");
    let lambda = script.lambda().start();
    lambda.init().unwrap();
    let error = lambda.invoke(Invocation::new().work(ms(500))).unwrap_err();
    assert!(matches!(error.kind, Failure::Crash(exit) if exit.code == Some(0)), "{error}");
}

#[test]
fn an_extension_that_ignores_shutdown_is_killed_at_the_deadline() {
    let script = Script::new("register; next; next; next; next");
    let lambda = script.lambda().shutdown_limit(ms(150)).start();
    lambda.init().unwrap();
    let report = lambda.invoke(Invocation::new()).unwrap();
    assert!(report.next.is_some());
    let end = lambda.shutdown("spindown");
    assert!(!end.deadline_met && end.exit.signal == Some(9) && end.took >= ms(150), "{end:?}");
}

#[test]
fn an_extension_that_holds_an_invocation_past_its_deadline_is_reset() {
    let script = Script::new("register; next; read -t 60 < <(sleep 60)");
    let lambda = script.lambda().timeout(ms(100)).shutdown_limit(ms(100)).start();
    let report = lambda.invoke(Invocation::new()).unwrap();
    assert!(
        report.deadline_exceeded && report.next.is_none() && !report.reset.unwrap().deadline_met
    );
}

#[test]
fn frozen_means_that_nothing_runs() {
    let ticking =
        Script::new("(while :; do echo tick; sleep 0.01; done) & register; next; next; next");
    let lambda = ticking.lambda().env("PATH", "/usr/bin:/bin").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().work(ms(30))).unwrap();
    assert!(lambda.is_frozen());
    std::thread::sleep(ms(20));
    let ticks = lambda.stdout().len();
    std::thread::sleep(ms(80));
    assert_eq!(lambda.stdout().len(), ticks);
    lambda.invoke(Invocation::new().work(ms(50))).unwrap();
    assert!(lambda.stdout().len() > ticks + 1);
}

#[test]
fn crashes_and_kills_leave_telemetry_to_the_next_process() {
    let kinesis = Kinesis::builder().unsigned().start();
    let lambda = floor(&kinesis).start();
    let report = lambda.invoke(Invocation::new().text("one").crashes()).unwrap();
    assert!(report.reset.unwrap().is_clean());
    let report = lambda.invoke(Invocation::new().text("two").runs_out_of_memory()).unwrap();
    assert!(report.init.is_some() && report.reset.is_none() && lambda.pid().is_none());
    lambda.invoke(Invocation::new().text("three").work(ms(60))).unwrap();
    lambda.kill();
    let error = lambda.invoke(Invocation::new().work(ms(60))).unwrap_err();
    assert!(matches!(error.kind, Failure::Crash(exit) if exit.signal == Some(9)), "{error}");
    lambda.invoke(Invocation::new().text("four").work(ms(60))).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert!(
        lambda.sent().iter().all(|event| event.handed > 0),
        "what a process did not take, the next one does"
    );
    assert!(lambda.init().is_err_and(|error| error.kind == Failure::Ended));
}

#[test]
fn every_way_to_post() {
    let ways = [
        Delivery { chunked: Some(100), ..Delivery::default() },
        Delivery { tiny_writes: Some((7, ms(0))), connections: 3, ..Delivery::default() },
        Delivery { close: true, ..Delivery::default() },
        Delivery { expect_continue: true, ..Delivery::default() },
    ];
    for way in ways {
        // The floor reads Content-Length only, so a chunked body is taken for none.
        let chunked = way.chunked.is_some();
        let kinesis = Kinesis::builder().unsigned().start();
        let lambda = floor(&kinesis).delivery(way).start();
        for number in 0..3 {
            lambda.invoke(Invocation::new().text(&format!("line {number}")).work(ms(40))).unwrap();
        }
        if !chunked {
            lambda.shutdown("spindown");
            kinesis.account().compare(&ids_ignored(&lambda)).assert_clean();
        }
    }
}

#[test]
fn a_batch_twice_and_a_record_in_pieces() {
    let kinesis = Kinesis::builder().unsigned().start();
    let lambda = floor(&kinesis).start();
    lambda.init().unwrap();
    assert!(lambda.drain(ms(500)));
    lambda.deliver(|delivery| delivery.duplicate = true);
    lambda.invoke(Invocation::new().text("twice").work(ms(60))).unwrap();
    let twice = lambda.sent().into_iter().find(|event| event.kind == "function").unwrap();
    assert_eq!((twice.offered, twice.handed), (2, 2));
    kinesis.wait_for(ms(500), "both", |account| account.containing("twice").len() == 2);

    lambda.deliver(|delivery| {
        *delivery =
            Delivery { cut: Some(Cut { over: 64, form: CutForm::Across }), ..Delivery::default() }
    });
    let posts = lambda.posts().len();
    lambda
        .invoke(
            Invocation::new().json(&serde_json::json!({"message": "A".repeat(150)})).work(ms(80)),
        )
        .unwrap();
    assert!(lambda.posts().len() >= posts + 3);
    let records = kinesis.records();
    let first = records
        .iter()
        .find(|record| record.data.ends_with(b"AAAA}]"))
        .expect("a piece that is no JSON");
    assert!(serde_json::from_slice::<serde_json::Value>(&first.data).is_err());
}

#[test]
fn a_listener_that_is_late_is_tried_again() {
    let script = Script::new(
        r#"register
        call PUT /2022-07-01/telemetry '{"schemaVersion":"2022-12-13","types":["platform"],"buffering":{"timeoutMs":25},"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:'$KINESIS_TELEMETRY_PORT'/"}}' "$id"
        next; next"#,
    );
    let lambda = script.lambda().without_freeze().start();
    lambda.init().unwrap();
    wait_until(ms(1000), "two attempts", || lambda.posts().len() >= 2);
    assert!(lambda.posts()[0].result.as_ref().is_err_and(|error| error.contains("refused")));
    let listener = std::net::TcpListener::bind(("127.0.0.1", lambda.listener_port())).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    wait_until(ms(1500), "an event that is handed over", || {
        lambda.sent().iter().any(|event| event.handed > 0)
    });
    assert!(lambda.sent()[0].offered > 1 && lambda.sent()[0].handed == 1);
}

#[test]
fn telemetry_without_room_is_dropped_and_reported() {
    let kinesis = Kinesis::builder().unsigned().start();
    let lambda = floor(&kinesis).telemetry_room(4000).start();
    let lines = (0..100).map(|number| format!("line {number}"));
    lambda.invoke(Invocation::new().lines(lines).work(ms(40))).unwrap();
    lambda.invoke(Invocation::new().work(ms(40))).unwrap();
    assert!(lambda.dropped() > 0);
    assert!(lambda.sent().iter().any(|event| event.kind == "platform.logsDropped"));
}

#[test]
fn managed_instances_overlap_and_never_freeze() {
    let script = Script::new(
        r#"register
        call POST $api/register '{"events":["SHUTDOWN"]}' "Lambda-Extension-Name: ${0##*/}"
        next"#,
    );
    let lambda = script.lambda().managed_instances().start();
    lambda.init().unwrap();
    assert!(lambda.stdout().iter().any(|line| line.contains("INVOKE: ErrorInvalidEventType")));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                lambda
                    .invoke(
                        Invocation::new().json(&serde_json::json!({"message": "x"})).work(ms(30)),
                    )
                    .unwrap()
            });
        }
    });
    assert!(!lambda.is_frozen());
    assert!(lambda.shutdown("spindown").is_clean());
}

#[test]
fn nothing_is_left_behind() {
    let script = Script::new("register; next");
    let lambda = script.lambda().start();
    lambda.init().unwrap();
    let (pid, directory) = (lambda.pid().unwrap(), lambda.directory().to_owned());
    drop(lambda);
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists() && !directory.exists());
}

// --- what AWS leaves open --------------------------------------------------------------------------------------------------------------

/// Subscribes a path that no other process has.
const SUBSCRIBE: &str = r#"register
    call PUT /2022-07-01/telemetry '{"schemaVersion":"2022-12-13","types":["platform","function"],"buffering":{"timeoutMs":25},"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:'$KINESIS_TELEMETRY_PORT'/'$$'"}}' "$id"
"#;

/// The `deadlineMs` of the last event that the script was given.
fn deadline(lambda: &Lambda) -> i64 {
    let printed = lambda.stdout().join("\n");
    let at = printed.rfind("\"deadlineMs\":").unwrap() + 13;
    printed[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn the_first_subscription_stays_in_force_if_asked_for() {
    for keeps in [false, true] {
        let script = Script::new(&format!("{SUBSCRIBE} next; next"));
        let builder = script.lambda();
        let lambda = if keeps { builder.keep_first_subscription() } else { builder }.start();
        lambda.init().unwrap();
        let first = lambda.subscription().unwrap();
        assert!(lambda.invoke(Invocation::new().crashes()).unwrap().reset.unwrap().is_clean());
        lambda.init().unwrap();
        assert_eq!(lambda.subscription().unwrap() == first, keeps);
        let statuses: Vec<u16> = lambda
            .calls()
            .iter()
            .filter(|call| call.path.ends_with("/telemetry"))
            .map(|call| call.status)
            .collect();
        assert_eq!(statuses, [200, 200]);
    }
}

#[test]
fn the_path_is_dropped_if_asked_for() {
    for drops in [false, true] {
        let script = Script::new(&format!("{SUBSCRIBE} next"));
        let builder = script.lambda().without_freeze();
        let lambda = if drops { builder.drop_path() } else { builder }.start();
        let listener = std::net::TcpListener::bind(("127.0.0.1", lambda.listener_port())).unwrap();
        lambda.init().unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut line).unwrap();
        let path = if drops { "/".to_owned() } else { lambda.subscription().unwrap().path };
        assert_eq!(line, format!("POST {path} HTTP/1.1\r\n"));
    }
}

#[test]
fn a_poster_that_does_not_try_again_drops_and_says_so() {
    // Nobody listens.
    let script = Script::new(&format!("{SUBSCRIBE} next"));
    let lambda = script.lambda().poster_without_retry().without_freeze().start();
    lambda.init().unwrap();
    wait_until(ms(2000), "nothing left to post", || lambda.dropped() >= 2 && lambda.drain(ms(0)));
    let sent = lambda.sent();
    assert!(sent.iter().all(|event| event.offered == 1 && event.handed == 0), "{sent:?}");
    assert_eq!(
        sent.iter().filter(|event| event.kind == "platform.logsDropped").count(),
        1,
        "the report of a report is left out"
    );
}

#[test]
fn an_event_type_that_lambda_loses_is_never_posted() {
    let kinesis = Kinesis::builder().unsigned().start();
    let lost = Delivery { lost_type: Some("function".to_owned()), ..Delivery::default() };
    let lambda = floor(&kinesis).delivery(lost).start();
    lambda.invoke(Invocation::new().text("lost").work(ms(60))).unwrap();
    let sent = lambda.sent();
    let handed = |kind: &str| sent.iter().find(|event| event.kind == kind).unwrap().handed;
    assert_eq!((handed("function"), handed("platform.start")), (0, 1));
}

#[test]
fn deadlines_are_moved_or_relative_if_asked_for() {
    let script = Script::new("register; next; next");
    let now = || sandbox::unix_millis(std::time::SystemTime::now());
    let lambda = script.lambda().deadline_offset(-3_600_000).timeout(ms(900)).start();
    lambda.invoke(Invocation::new()).unwrap();
    assert!((now() + 899 - 3_610_000..=now() + 900 - 3_600_000).contains(&deadline(&lambda)));
    let lambda = script
        .lambda()
        .relative_deadlines()
        .runtime_share_of_shutdown(ms(600))
        .timeout(ms(900))
        .start();
    lambda.invoke(Invocation::new()).unwrap();
    assert_eq!(deadline(&lambda), 900);
    let begun = std::time::Instant::now();
    assert!(lambda.shutdown("spindown").is_clean());
    assert!(begun.elapsed() >= ms(600));
    assert!((1000..=1400).contains(&deadline(&lambda)), "{}", deadline(&lambda));
}

#[test]
fn a_crash_is_reported_at_once_late_or_never() {
    let script = Script::new(&format!("{SUBSCRIBE} next; next; read -t 0.2 < <(sleep 0.2)"));
    let end = |builder: LambdaBuilder| {
        let lambda = builder.start();
        lambda.invoke(Invocation::new().crashes()).unwrap();
        let kinds: Vec<String> =
            lambda.sent().into_iter().map(|event| event.kind.replace("platform.", "")).collect();
        kinds[kinds.iter().position(|kind| kind == "start").unwrap()..].join(" ")
    };
    assert_eq!(end(script.lambda()), "start runtimeDone report");
    assert_eq!(
        end(script.lambda().crash_with_late_runtime_done(ms(100))),
        "start report runtimeDone"
    );
    assert_eq!(end(script.lambda().crash_without_runtime_done()), "start report");
}

#[test]
fn memory_that_runs_out_kills_the_runtime_alone_if_asked_for() {
    let script = Script::new("register; next; next");
    let lambda = script.lambda().oom_of_runtime().start();
    let report = lambda.invoke(Invocation::new().runs_out_of_memory()).unwrap();
    assert!(report.reset.unwrap().is_clean());
    assert!(lambda.stdout().iter().any(|line| line.contains(r#""shutdownReason":"failure""#)));
}

#[test]
fn an_init_after_a_reset_uses_up_the_time_out_if_asked_for() {
    let script = Script::new("register; next; next");
    let lambda = script
        .lambda()
        .suppressed_init_counts()
        .relative_deadlines()
        .runtime_init(ms(100), &[])
        .timeout(ms(5000))
        .start();
    assert!(lambda.invoke(Invocation::new().crashes()).unwrap().reset.unwrap().is_clean());
    lambda.invoke(Invocation::new()).unwrap();
    assert!(deadline(&lambda) <= 4900, "{}", deadline(&lambda));
    let lambda = script
        .lambda()
        .suppressed_init_counts()
        .runtime_init(ms(300), &[])
        .timeout(ms(200))
        .start();
    assert!(
        lambda.invoke(Invocation::new().crashes()).unwrap().reset.unwrap().is_clean(),
        "the first init does not count"
    );
    assert!(
        lambda.invoke(Invocation::new()).unwrap().reset.is_some(),
        "the second leaves nothing of the time-out"
    );
}
