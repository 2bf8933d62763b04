//! `--check`: what it reports, and what a person is to fix.

use std::net::TcpListener;
use std::process::Command;

use sandbox::{Credentials, Fault, Identity, Kinesis};

use crate::{docs, runner_command};

/// Runs `--check` with what `kinesis` needs, changed by `change`; whether it was content, and what it said.
fn check(kinesis: &Kinesis, change: impl FnOnce(&mut Command)) -> (bool, String) {
    let keys = kinesis.credentials();
    let mut command = runner_command();
    command.arg("--check").env_clear();
    command
        .env("AWS_REGION", kinesis.region())
        .env("AWS_ENDPOINT_URL_KINESIS", kinesis.url())
        .env("KINESIS_TELEMETRY_STREAM", kinesis.stream_name());
    command
        .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key);
    command.env("AWS_SESSION_TOKEN", keys.session_token.as_deref().unwrap_or_default());
    if let Some(bundle) = kinesis.ca_bundle() {
        command.env("AWS_CA_BUNDLE", bundle);
    }
    change(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{said}");
    for secret in [&keys.secret_access_key, keys.session_token.as_ref().unwrap()] {
        assert!(!said.contains(secret.as_str()), "{said}");
    }
    assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}", output.status);
    (output.status.success(), said)
}

/// It is not content, and says all of `parts`.
#[track_caller]
fn wrong((good, said): (bool, String), parts: &[&str]) {
    assert!(!good, "{said}");
    for part in parts.iter().chain(&["FAIL", "fix: ", "would not arrive"]) {
        assert!(said.contains(part), "{part} missing in:\n{said}");
    }
}

#[test]
fn all_is_well() {
    for kinesis in [Kinesis::start(), Kinesis::builder().tls().start()] {
        let (good, said) = check(&kinesis, |_| {});
        assert!(
            good && said.contains("one record was taken")
                && said.ends_with("OK: Kinesis accepted a test record\n"),
            "{said}"
        );
        let account = kinesis.account();
        assert_eq!(
            (account.events.len(), account.of_type("kinesis-telemetry.check").len()),
            (1, 1)
        );
    }
}

#[test]
fn an_arn_and_a_misspelt_setting() {
    let kinesis = Kinesis::start();
    let arn = kinesis.stream_arn().to_owned();
    let (good, said) = check(&kinesis, |command| {
        command
            .env("KINESIS_TELEMETRY_STREAM", &arn)
            .env("KINESIS_TELEMETRY_STREM", "x")
            .env_remove("AWS_REGION");
    });
    assert!(
        good && said.contains("KINESIS_TELEMETRY_STREM is no setting") && said.contains(&arn),
        "{said}"
    );
}

#[test]
fn bad_settings() {
    let kinesis = Kinesis::start();
    let answer = check(&kinesis, |command| {
        command.env("KINESIS_TELEMETRY_FLUSH", "banana").env("KINESIS_TELEMETRY_PORT", "9001");
    });
    wrong(answer, &["KINESIS_TELEMETRY_FLUSH=\"banana\"", "KINESIS_TELEMETRY_PORT=\"9001\""]);
    assert!(kinesis.puts().is_empty());
}

#[test]
fn an_unset_stream_is_to_be_set_and_nothing_to_send_is_no_success() {
    let kinesis = Kinesis::start();
    let answer = check(&kinesis, |command| {
        command.env_remove("KINESIS_TELEMETRY_STREAM");
    });
    assert!(!answer.1.contains("unset it"), "{}", answer.1);
    wrong(answer, &["KINESIS_TELEMETRY_STREAM is not set", "fix: set it to a stream name or ARN"]);
    for exclude in ["*", "platform.*,function"] {
        let answer = check(&kinesis, |command| {
            command.env("KINESIS_TELEMETRY_EXCLUDE", exclude);
        });
        wrong(answer, &["KINESIS_TELEMETRY_EXCLUDE leaves out everything"]);
        // It was no success either where a summary of each invocation is all that is asked for.
        let (good, said) = check(&kinesis, |command| {
            command.env("KINESIS_TELEMETRY_EXCLUDE", exclude);
            command.env("KINESIS_TELEMETRY_SUMMARY", "invocation");
        });
        assert!(good, "{said}");
    }
}

#[test]
fn a_wrong_stream() {
    let kinesis = Kinesis::start();
    let answer = check(&kinesis, |command| {
        command.env("KINESIS_TELEMETRY_STREAM", "telemetri");
    });
    wrong(
        answer,
        &[
            "ResourceNotFoundException",
            "correct KINESIS_TELEMETRY_STREAM: there is no stream telemetri in region us-east-1",
        ],
    );
}

#[test]
fn no_permission() {
    let kinesis = Kinesis::start();
    let text = "User: arn:aws:sts::123456789012:assumed-role/f/f is not authorized to perform: kinesis:PutRecords";
    kinesis.fault(Fault::error_text(400, "AccessDeniedException", text));
    wrong(
        check(&kinesis, |_| {}),
        &[
            "AccessDeniedException",
            text,
            "kinesis:PutRecords on arn:aws:kinesis:us-east-1:<account>:stream/telemetry",
        ],
    );
}

#[test]
fn no_credentials_wrong_ones_and_expired_ones() {
    let kinesis = Kinesis::start();
    let answer = check(&kinesis, |command| {
        command.env("AWS_ACCESS_KEY_ID", "");
    });
    wrong(
        answer,
        &["credentials: AWS_ACCESS_KEY_ID is not set", "set the other half too, or unset both"],
    );
    let answer = check(&kinesis, |command| {
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    });
    wrong(answer, &["AWS_SECRET_ACCESS_KEY are not set", "give the function a role"]);
    let answer = check(&kinesis, |command| {
        command.env("AWS_SECRET_ACCESS_KEY", "another");
    });
    wrong(answer, &["InvalidSignatureException", "correct AWS_SECRET_ACCESS_KEY"]);
    let answer = check(&kinesis, |command| {
        command.env_remove("AWS_SESSION_TOKEN");
    });
    wrong(answer, &["UnrecognizedClientException", "AWS_SESSION_TOKEN"]);
    kinesis.fault(Fault::error(400, "ExpiredTokenException"));
    wrong(check(&kinesis, |_| {}), &["ExpiredTokenException", "fresh credentials"]);
}

#[test]
fn a_bad_certificate_authority() {
    let (kinesis, other) = (Kinesis::builder().tls().start(), Kinesis::builder().tls().start());
    let answer = check(&kinesis, |command| {
        command.env_remove("AWS_CA_BUNDLE");
    });
    wrong(answer, &["Tls", "set AWS_CA_BUNDLE to the certificate authority of https://localhost"]);
    let answer = check(&kinesis, |command| {
        command.env("AWS_CA_BUNDLE", other.ca_bundle().unwrap());
    });
    wrong(answer, &["Tls", "the one that is set lacks the certificate authority"]);
    for file in ["/nowhere.pem", "/dev/null", "/tmp"] {
        let answer = check(&kinesis, |command| {
            command.env("AWS_CA_BUNDLE", file);
        });
        wrong(answer, &[file, "a readable PEM file"]);
    }
}

/// To open a named pipe took until somebody wrote to it: for ever.
#[test]
fn a_named_pipe_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let kinesis = Kinesis::start();
    let answer = check(&kinesis, |command| {
        command.env("AWS_CA_BUNDLE", &pipe);
    });
    wrong(answer, &["CaBundle", "not a file"]);
    let answer = check(&kinesis, |command| {
        command
            .env("AWS_ACCESS_KEY_ID", "")
            .env("AWS_SECRET_ACCESS_KEY", "")
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/")
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &pipe);
    });
    wrong(answer, &["BadToken", "not a file"]);
}

#[test]
fn no_network() {
    let kinesis = Kinesis::start();
    kinesis.refuse_connections();
    wrong(
        check(&kinesis, |_| {}),
        &["ConnectionFailed", "can be reached from here", "VPC endpoint"],
    );
    let answer = check(&kinesis, |command| {
        command.env("AWS_ENDPOINT_URL_KINESIS", "http://no-such-host.invalid/");
    });
    wrong(answer, &["HostNotFound", "can be resolved from here"]);
    // Somebody listens there, but speaks no proxy.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://user:hidden@{}", listener.local_addr().unwrap());
    drop(listener);
    let answer = check(&kinesis, |command| {
        command.env_remove("AWS_ENDPOINT_URL_KINESIS").env("HTTPS_PROXY", &proxy);
    });
    assert!(!answer.1.contains("hidden"), "{}", answer.1);
    wrong(answer, &["through the one in HTTPS_PROXY", "can be reached from here"]);
}

#[test]
fn a_skewed_clock_is_noted_and_corrected() {
    for (seconds, side) in [(900, "behind"), (-900, "ahead of")] {
        let kinesis = Kinesis::start();
        kinesis.move_clock(seconds);
        let (good, said) = check(&kinesis, |_| {});
        assert!(
            good && said.contains("set the clock right")
                && said.contains(&format!("seconds {side} AWS's")),
            "{said}"
        );
    }
}

#[test]
fn roles_and_their_refusals() {
    let own = Credentials::default();
    let role =
        Credentials { access_key_id: "ASIACHECKROLEEXAMPLE".to_owned(), ..Credentials::default() };
    let kinesis = Kinesis::builder().credentials(role.clone()).start();
    let identity = Identity::start(&role, &own);
    let arn = "arn:aws:iam::210987654321:role/writer";
    let with_role = |command: &mut Command| {
        command
            .env("AWS_ACCESS_KEY_ID", &own.access_key_id)
            .env("KINESIS_TELEMETRY_ROLE_ARN", arn)
            .env("AWS_ENDPOINT_URL_STS", identity.sts_url());
    };
    let (good, said) = check(&kinesis, with_role);
    assert!(good && said.contains(&format!("role: {arn} is assumed")), "{said}");
    for (status, code, part) in [
        (
            403,
            "AccessDenied",
            "allow the function's role sts:AssumeRole on arn:aws:iam::210987654321:role/writer",
        ),
        (403, "RegionDisabledException", "activate STS for region us-east-1"),
        (403, "ExpiredToken", "get fresh credentials"),
        (503, "ServiceUnavailable", "can be reached from here"),
    ] {
        identity.refuses(Some((status, code, "as STS says it")));
        wrong(
            check(&kinesis, with_role),
            &[&format!("AssumeRole.{code}"), "AWS says: as STS says it", part],
        );
    }
}

#[test]
fn a_role_is_only_reported_as_assumed_when_it_was() {
    let own = Credentials::default();
    let kinesis = Kinesis::start();
    let identity = Identity::start(&own, &own);
    let cases: [(&str, &[(&str, &str)]); 4] = [
        ("CaBundle", &[("AWS_CA_BUNDLE", "/nowhere.pem")]),
        ("BadCredentials", &[("AWS_SESSION_TOKEN", "to\nken")]),
        (
            "ContainerCredentials.ConnectionFailed",
            &[
                ("AWS_ACCESS_KEY_ID", ""),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/"),
            ],
        ),
        ("AssumeRole.ConnectionFailed", &[("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9/")]),
    ];
    for (code, variables) in cases {
        let answer = check(&kinesis, |command| {
            command
                .env("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws:iam::210987654321:role/writer")
                .env("AWS_ENDPOINT_URL_STS", identity.sts_url());
            command.envs(variables.iter().copied());
        });
        assert!(!answer.1.contains("is assumed"), "{}", answer.1);
        wrong(answer, &[code]);
    }
    // Assumed, and refused by Kinesis after that.
    kinesis.fault(Fault::error(400, "AccessDeniedException"));
    let answer = check(&kinesis, |command| {
        command
            .env("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws:iam::210987654321:role/writer")
            .env("AWS_ENDPOINT_URL_STS", identity.sts_url());
    });
    wrong(
        answer,
        &[
            "role/writer is assumed",
            "allow arn:aws:iam::210987654321:role/writer the action kinesis:PutRecords",
        ],
    );
}

#[test]
fn plain_http_to_another_machine_is_noted() {
    let kinesis = Kinesis::start();
    let answer = check(&kinesis, |command| {
        command.env("AWS_ENDPOINT_URL_KINESIS", "http://no-such-host.invalid/path");
    });
    wrong(answer, &["note  settings: http://no-such-host.invalid is called over plain http"]);
    let (good, said) = check(&kinesis, |_| {});
    assert!(good && !said.contains("plain http"), "{said}");
}

/// Escape sequences of an answer could draw a forged line, or hide the true one.
#[test]
fn an_answer_cannot_move_the_cursor() {
    let kinesis = Kinesis::start();
    kinesis.fault(Fault::error_text(
        400,
        "Bad\u{1b}[2K\nok    Kinesis",
        "\u{1b}[1A\u{9b}2Kone record was taken\u{202e}\nok    Kinesis: forged",
    ));
    let answer = check(&kinesis, |_| {});
    assert!(
        answer.1.chars().all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic()),
        "{:?}",
        answer.1
    );
    assert!(answer.1.lines().all(|line| !line.starts_with("ok    Kinesis")), "{}", answer.1);
    wrong(answer, &["Bad2KokKinesis: HTTP 400"]);
}

#[test]
fn the_readme_shows_what_is_printed() {
    let kinesis = Kinesis::builder().stream("telemetry").start();
    let (good, said) = check(&kinesis, |_| {});
    let said = said
        .replace(kinesis.url().trim_end_matches('/'), "https://kinesis.eu-west-1.amazonaws.com")
        .replace(kinesis.region(), "eu-west-1");
    assert!(good && docs::read("README.md").contains(&said), "README.md does not show:\n{said}");
}
