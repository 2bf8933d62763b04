//! A marker in every variable that can hold a secret, well-formed and not; then a search through all that leaves the sandbox or stays in it.

use sandbox::{Credentials, Fault, Identity, Invocation, Kinesis, LambdaBuilder, Which, ms};

use crate::{extension, ledger, runner_command};

/// No telemetry has it.
const CANARY: &str = "CANARY5e1f";

/// Runs a short life and looks everywhere: stderr, stdout, the stream with the ledger on it, and the files under `/tmp`.
#[track_caller]
fn assert_silent(kinesis: &Kinesis, what: &str, builder: LambdaBuilder) {
    let lambda = builder
        .setting("LOG_LEVEL", "debug")
        .setting("METRICS", "emf")
        .setting("FLUSH_TIMEOUT_MS", "300")
        .start();
    lambda.init().unwrap();
    for n in 0..2 {
        lambda.invoke(Invocation::new().text(&format!("line {n}"))).unwrap();
    }
    // What could not be sent is spooled when the sandbox is reset.
    assert!(lambda.shutdown("timeout").is_clean(), "{what}");
    let said = [lambda.stderr(), lambda.stdout()].concat().join("\n");
    assert!(!said.contains(CANARY), "{what}: {said}");
    let on_stream = kinesis
        .records()
        .iter()
        .any(|record| holds(&record.data) || record.partition_key.contains(CANARY));
    assert!(!on_stream, "{what}: on the stream");
    let mut folders = vec![lambda.tmp()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            assert!(!path.to_string_lossy().contains(CANARY), "{what}: {}", path.display());
            if path.is_dir() {
                folders.push(path);
            } else {
                assert!(!holds(&std::fs::read(&path).unwrap()), "{what}: {}", path.display());
            }
        }
    }
}

fn holds(data: &[u8]) -> bool {
    data.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}

#[test]
fn secrets_that_work_show_nowhere() {
    let keys = Credentials {
        access_key_id: "ASIASECRETSEXAMPLE01".to_owned(),
        secret_access_key: format!("{CANARY}/secret/of/forty/characters"),
        session_token: Some(format!("{CANARY}//////token==")),
    };
    let role = Credentials { access_key_id: "ASIASECRETSEXAMPLE02".to_owned(), ..keys.clone() };
    for refused in [false, true] {
        let kinesis = Kinesis::builder().credentials(role.clone()).start();
        let identity = Identity::start(&role, &keys);
        if refused {
            kinesis.fault(Fault::error_text(
                400,
                "AccessDeniedException",
                &format!("User: {CANARY}"),
            ));
        }
        let builder = extension(&kinesis)
            .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key)
            .env("AWS_SESSION_TOKEN", keys.session_token.as_deref().unwrap())
            .env("AWS_ENDPOINT_URL_STS", &identity.sts_url())
            .env("HTTPS_PROXY", &format!("http://user:{CANARY}@127.0.0.1:9"))
            .setting("ROLE_ARN", "arn:aws:iam::210987654321:role/writer")
            .setting("EXTERNAL_ID", CANARY);
        assert_silent(&kinesis, &format!("refused: {refused}"), builder);
        assert_eq!(kinesis.records().is_empty(), refused, "the credentials work");
        if refused {
            identity.refuses(Some((403, "AccessDenied", CANARY)));
            let builder = extension(&kinesis)
                .env("AWS_ENDPOINT_URL_STS", &identity.sts_url())
                .setting("ROLE_ARN", "arn:aws:iam::210987654321:role/writer")
                .setting("EXTERNAL_ID", CANARY);
            assert_silent(&kinesis, "STS refuses", builder);
        }
    }
}

#[test]
fn secrets_that_are_not_well_formed_show_nowhere() {
    let kinesis = Kinesis::start();
    let values = [
        ("AWS_SECRET_ACCESS_KEY", "CANARY5e1f\u{1b}[31m"),
        ("AWS_SESSION_TOKEN", "CANARY5e1f\r\nX-Evil: 1"),
        ("AWS_ENDPOINT_URL_KINESIS", "https://user:CANARY5e1f@host/"),
        ("AWS_ENDPOINT_URL_KINESIS", "CANARY5e1f"),
        ("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:9/CANARY5e1f/"),
        ("HTTPS_PROXY", "socks5://user:CANARY5e1f@127.0.0.1:9"),
        ("HTTPS_PROXY", "http://user:CANARY5e1f@127.0.0.1:9"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://10.0.0.1/?token=CANARY5e1f"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/?token=CANARY5e1f"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "CANARY5e1f"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "CANARY5e1f\r\nX-Evil: 1"),
        ("KINESIS_TELEMETRY_EXTERNAL_ID", "CANARY5e1f"),
        ("KINESIS_TELEMETRY_EXTERNAL_ID", "CANARY5e1f with a space"),
    ];
    for (name, value) in values {
        let mut builder = extension(&kinesis);
        if name == "HTTPS_PROXY" {
            builder = builder.without_env("AWS_ENDPOINT_URL_KINESIS");
        }
        if name.starts_with("AWS_CONTAINER") {
            builder = builder.without_credentials();
        }
        if name == "AWS_CONTAINER_AUTHORIZATION_TOKEN" {
            builder = builder.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/");
        }
        assert_silent(&kinesis, &format!("{name}={value:?}"), builder.env(name, value));

        let mut command = runner_command();
        command
            .arg("--check")
            .env_clear()
            .env("AWS_REGION", "us-east-1")
            .env("KINESIS_TELEMETRY_STREAM", "telemetry");
        if !name.starts_with("AWS_CONTAINER") {
            command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret");
        }
        if name != "HTTPS_PROXY" {
            command.env("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:9");
        }
        if name == "AWS_CONTAINER_AUTHORIZATION_TOKEN" {
            command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/");
        }
        let output = command.env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}={value:?}");
        let said = [output.stdout, output.stderr].concat();
        assert!(
            !holds(&said) && !said.contains(&0x1b),
            "{name}={value:?}: {}",
            String::from_utf8_lossy(&said)
        );
    }
}

/// Something on the way that repeats what it was sent, as an error's name, the request's id or a text: the session token stood in the log,
/// in the ledger and in what `--check` says.
#[test]
fn a_secret_that_an_answer_repeats_shows_nowhere() {
    let keys = Credentials {
        session_token: Some(format!("{CANARY}{}", "SESSIONtoken0123456789".repeat(20))),
        ..Credentials::default()
    };
    let token = keys.session_token.as_deref().unwrap();
    for part in [token, &token[..40], &token[3..60]] {
        let kinesis = Kinesis::builder().credentials(keys.clone()).start();
        kinesis.fault(Fault::error(503, part).times(1));
        kinesis.fault(Fault::records(Which::All, part).times(1));
        kinesis.fault(Fault::error_text(400, "AccessDeniedException", part).times(1));
        let lambda = extension(&kinesis).setting("LOG_LEVEL", "debug").start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new().text("hello").work(ms(50))).unwrap();
        lambda.invoke(Invocation::new().text("hello").work(ms(50))).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let said = lambda.stderr().join("\n");
        let ledger = ledger(&kinesis).to_string();
        for text in [&said, &ledger] {
            assert!(!text.contains(CANARY) && !text.contains("SESSIONtoken"), "{text}");
        }
        assert!(ledger.contains("\"xxxxx"), "a code is there: {ledger}");

        kinesis.fault(Fault::error_text(400, "AccessDeniedException", &format!("got {part}.")));
        let mut command = runner_command();
        command.arg("--check").env_clear();
        command
            .env("AWS_REGION", kinesis.region())
            .env("AWS_ENDPOINT_URL_KINESIS", kinesis.url())
            .env("KINESIS_TELEMETRY_STREAM", kinesis.stream_name())
            .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key)
            .env("AWS_SESSION_TOKEN", token);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(said.contains("AWS says: got xxxxx"), "{said}");
        assert!(!said.contains(CANARY) && !said.contains("SESSIONtoken"), "{said}");
    }
}
