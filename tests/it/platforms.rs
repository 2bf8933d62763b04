//! Every place that Lambda runs, and every way out to Kinesis: SnapStart, Managed Instances, provisioned concurrency, roles, proxies.

use std::time::{Duration, Instant};

use sandbox::{
    Credentials, Failure, Fault, Identity, Invocation, Kinesis, LambdaBuilder, Proxy, ms,
};

use crate::{extension, ledger};

/// Keys that no other test has.
fn keys(name: &str) -> Credentials {
    Credentials {
        access_key_id: format!("ASIA{name}EXAMPLE00001"),
        secret_access_key: format!("{name}/secret/of/forty/characters/or/so"),
        session_token: Some(format!("{name}//////////token+of+the+session==")),
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// As under SnapStart: no keys in the environment, but an endpoint that has them.
fn snap_start(kinesis: &Kinesis, identity: &Identity) -> LambdaBuilder {
    extension(kinesis)
        .without_credentials()
        .initialization_type("snap-start")
        .freeze_after_init()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &identity.container_url())
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", identity.token())
}

// --- credentials -----------------------------------------------------------------------------------------------------------------------

#[test]
fn container_credentials_are_fetched_with_the_first_send_and_then_kept() {
    let own = keys("CONTAINER");
    let kinesis = Kinesis::builder().credentials(own.clone()).start();
    let identity = Identity::start(&own, &own);
    let lambda = snap_start(&kinesis, &identity).start();
    lambda.init().unwrap();
    assert!(identity.requests().is_empty(), "nothing of it can be in a snapshot");
    for _ in 0..3 {
        lambda.invoke(Invocation::new().text("hello")).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let requests = identity.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].header("authorization"), Some(identity.token()));
    assert!(lambda.stderr().is_empty(), "{:?}", lambda.stderr());
}

#[test]
fn a_token_file_wins_and_is_read_each_time() {
    let own = keys("TOKENFILE");
    let kinesis = Kinesis::builder().credentials(own.clone()).start();
    let identity = Identity::start(&own, &own);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "wrong").unwrap();
    let lambda = snap_start(&kinesis, &identity)
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.path().to_str().unwrap())
        .start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("refused")).unwrap();
    assert_eq!(kinesis.puts().len(), 0);
    assert!(
        lambda.stderr()[0].contains("ContainerCredentials.Http404: HTTP 404; to fix it, see AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        "{:?}",
        lambda.stderr()
    );
    std::fs::write(file.path(), identity.token()).unwrap();
    lambda.invoke(Invocation::new().work(ms(1100))).unwrap();
    lambda.invoke(Invocation::new().text("taken")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn keys_that_expire_are_renewed_in_time_and_refused_ones_at_once() {
    let (first, second, third) = (keys("FIRST"), keys("SECOND"), keys("THIRD"));
    let kinesis = Kinesis::builder().credentials(first.clone()).start();
    let identity = Identity::start(&first, &first);
    identity.gives(&first, Duration::from_secs(2));
    let lambda = snap_start(&kinesis, &identity).without_freeze().start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("one")).unwrap();
    // Over by the clock: renewed before Kinesis sees them.
    identity.gives(&second, HOUR);
    kinesis.rotate(&second);
    std::thread::sleep(ms(2100));
    lambda.invoke(Invocation::new().text("two")).unwrap();
    assert_eq!(identity.requests().len(), 2);
    // Taken back before their time: refused once, renewed, and sent again at once.
    identity.gives(&third, HOUR);
    kinesis.rotate(&third);
    let report = lambda.invoke(Invocation::new().text("three")).unwrap();
    assert!(report.held < ms(300), "{:?}", report.held);
    assert_eq!(identity.requests().len(), 3);
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let refused = kinesis.puts().iter().filter(|put| put.status != Some(200)).count();
    assert_eq!((refused, lambda.stderr()), (1, Vec::new()));
}

#[test]
fn an_endpoint_without_keys_costs_nothing_but_the_wait_for_them() {
    let own = keys("LATE");
    let kinesis = Kinesis::builder().credentials(own.clone()).start();
    let identity = Identity::start(&own, &own);
    identity.refuses(Some((500, "", "")));
    let lambda = snap_start(&kinesis, &identity).setting("FLUSH_TIMEOUT_MS", "400").start();
    lambda.init().unwrap();
    let report = lambda.invoke(Invocation::new().text("waits")).unwrap();
    assert!(report.held < ms(700), "{:?}", report.held);
    identity.refuses(None);
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(ledger(&kinesis)["possibleDuplicates"], 0);
}

#[test]
fn a_role_is_assumed_once_and_its_keys_sign() {
    let (own, role) = (Credentials::default(), keys("ROLE"));
    let kinesis = Kinesis::builder().credentials(role.clone()).start();
    let identity = Identity::start(&role, &own);
    let lambda = with_role(&kinesis, &identity).setting("EXTERNAL_ID", "a:b/c=d").start();
    lambda.init().unwrap();
    assert!(identity.requests().is_empty());
    for _ in 0..3 {
        lambda.invoke(Invocation::new().text("hello")).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let requests = identity.requests();
    assert_eq!(requests.len(), 1);
    let body = String::from_utf8(requests[0].body.clone()).unwrap();
    assert!(body.ends_with("&RoleSessionName=orders&ExternalId=a%3Ab%2Fc%3Dd"), "{body}");
    assert!(lambda.stderr().is_empty(), "{:?}", lambda.stderr());
}

fn with_role(kinesis: &Kinesis, identity: &Identity) -> LambdaBuilder {
    let own = Credentials::default();
    extension(kinesis)
        .env("AWS_ACCESS_KEY_ID", &own.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &own.secret_access_key)
        .env("AWS_SESSION_TOKEN", own.session_token.as_deref().unwrap())
        .env("AWS_ENDPOINT_URL_STS", &identity.sts_url())
        .setting("ROLE_ARN", "arn:aws:iam::210987654321:role/writer")
}

#[test]
fn a_role_that_may_not_be_assumed_is_told_in_one_line_and_recovers() {
    let (own, role) = (Credentials::default(), keys("DENIED"));
    let kinesis = Kinesis::builder().credentials(role.clone()).start();
    let identity = Identity::start(&role, &own);
    identity.refuses(Some((
        403,
        "AccessDenied",
        "User: x is not authorized to perform: sts:AssumeRole on resource: y",
    )));
    let lambda = with_role(&kinesis, &identity).start();
    lambda.init().unwrap();
    for _ in 0..3 {
        let report = lambda.invoke(Invocation::new().text("waits")).unwrap();
        assert!(report.held < ms(600), "{:?}", report.held);
    }
    assert_eq!(lambda.stderr().len(), 1, "{:?}", lambda.stderr());
    let line = &lambda.stderr()[0];
    assert!(
        line.contains("AssumeRole.AccessDenied")
            && line.contains("sts:AssumeRole")
            && !line.contains("User: x"),
        "{line}"
    );
    identity.refuses(None);
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn a_wrong_clock_does_not_stop_a_role() {
    let (own, role) = (Credentials::default(), keys("CLOCK"));
    let kinesis = Kinesis::builder().credentials(role.clone()).start();
    let identity = Identity::start(&role, &own);
    kinesis.move_clock(900);
    identity.move_clock(900);
    let lambda = with_role(&kinesis, &identity).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(
        (
            identity.requests().len(),
            kinesis.puts().iter().filter(|put| put.status != Some(200)).count()
        ),
        (2, 0)
    );
}

// --- SnapStart -------------------------------------------------------------------------------------------------------------------------

#[test]
fn after_a_restore_ids_connections_and_keys_are_fresh() {
    for envelope in ["full", "slim"] {
        let own = keys("SNAP");
        let kinesis = Kinesis::builder().credentials(own.clone()).start();
        let identity = Identity::start(&own, &own);
        let lambda = snap_start(&kinesis, &identity).setting("ENVELOPE", envelope).start();
        lambda.init().unwrap();
        let restored = |name: &'static str| {
            Invocation::new().run(move |lambda| {
                lambda.emit(
                    "platform.restoreStart",
                    r#"{"functionName":"orders","functionVersion":"7"}"#,
                );
                lambda.emit("platform.restoreRuntimeDone", r#"{"status":"success"}"#);
                lambda.emit("function", format!("\"{name}\""));
            })
        };
        // With this the keys are there before the first restore, however early a connection is made
        // ready.
        lambda.invoke(Invocation::new().text("before any restore")).unwrap();
        lambda.invoke(restored("first restore")).unwrap();
        lambda.invoke(Invocation::new().text("same sandbox")).unwrap();
        lambda.invoke(restored("second restore")).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let account = kinesis.account();
        account.compare(&lambda.sent()).assert_clean();

        // The init's ids stay, each restore has its own, and in none of them is a gap or a repeat.
        let processes = account.by_process();
        assert_eq!(processes.len(), 3, "{processes:?}");
        assert!(
            processes.values().all(|process| process.gaps.is_empty() && process.repeats.is_empty()),
            "{processes:?}"
        );
        let id = |kind: &str, index: usize| {
            account.of_type(kind)[index].id().map(|(id, number)| (id.to_owned(), number)).unwrap()
        };
        let (first, second) = (id("platform.restoreStart", 0), id("platform.restoreStart", 1));
        assert_eq!((first.1, second.1), (1, 1));
        assert!(id("platform.initStart", 0).0 != first.0 && first.0 != second.0);
        assert_eq!(
            account.of_type("kinesis-telemetry.sandbox").len(),
            if envelope == "slim" { 3 } else { 0 }
        );
        // A connection and keys from before a restore are not used after it.
        let puts = kinesis.puts();
        assert_ne!(puts[0].connection, puts.last().unwrap().connection);
        assert_eq!(identity.requests().len(), 3);
    }
}

// --- proxies ---------------------------------------------------------------------------------------------------------------------------

#[test]
fn the_true_host_name_over_tls_through_a_proxy() {
    let kinesis = Kinesis::builder().tls().start();
    let proxy = Proxy::to(&kinesis);
    for (variable, settings) in
        [("HTTPS_PROXY", None), ("https_proxy", Some(("AWS_USE_FIPS_ENDPOINT", "true")))]
    {
        let lambda =
            extension(&kinesis).without_env("AWS_ENDPOINT_URL_KINESIS").env(variable, &proxy.url());
        let lambda = settings
            .into_iter()
            .fold(lambda, |lambda, (name, value)| lambda.env(name, value))
            .start();
        kinesis.forget();
        lambda.init().unwrap();
        for _ in 0..3 {
            lambda.invoke(Invocation::new().text("hello")).unwrap();
        }
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert!(
            kinesis.puts().iter().all(|put| put.tls && put.status == Some(200)),
            "{:?}",
            kinesis.puts()
        );
        assert!(lambda.stderr().is_empty(), "{:?}", lambda.stderr());
    }
    assert_eq!(
        proxy.requests(),
        [
            "CONNECT kinesis.us-east-1.amazonaws.com:443 HTTP/1.1",
            "CONNECT kinesis-fips.us-east-1.amazonaws.com:443 HTTP/1.1"
        ],
        "one connection each, and nothing of Lambda's own"
    );
}

#[test]
fn no_proxy_for_loopback_lambda_and_keys() {
    let own = keys("STRAIGHT");
    let kinesis = Kinesis::builder().credentials(own.clone()).start();
    let identity = Identity::start(&own, &own);
    // Nobody listens there.
    let dead = "http://127.0.0.1:9";
    let all = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"];
    let lambda = all
        .iter()
        .fold(snap_start(&kinesis, &identity), |lambda, name| lambda.env(name, dead))
        .start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn a_proxy_that_refuses_is_told_without_its_password() {
    let kinesis = Kinesis::builder().tls().start();
    // It takes no CONNECT, and says so; its address stands for a proxy's.
    let refuses = Kinesis::start();
    let url = format!("http://user:secret@127.0.0.1:{}", refuses.port());
    let lambda = extension(&kinesis)
        .without_env("AWS_ENDPOINT_URL_KINESIS")
        .env("HTTPS_PROXY", &url)
        .start();
    lambda.init().unwrap();
    let report = lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(report.held < ms(1000), "{:?}", report.held);
    assert!(lambda.shutdown("spindown").is_clean());
    let said = lambda.stderr().join("\n");
    assert!(
        said.contains("ProxyRefused") && said.contains("HTTPS_PROXY") && !said.contains("secret"),
        "{said}"
    );
}

// --- Managed Instances -----------------------------------------------------------------------------------------------------------------

#[test]
fn overlapping_invocations_keep_their_own_ids_and_no_other_is_guessed() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).managed_instances().start();
    lambda.init().unwrap();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let lambda = &lambda;
            scope.spawn(move || {
                for n in 0..5 {
                    let tenant = format!("tenant-{worker}");
                    let own = format!("r-{worker}-{n}");
                    let line = serde_json::json!({"requestId": own, "level": "INFO", "message": "own", "tenantId": tenant});
                    let invocation = Invocation::new().request_id(&own).tenant(&tenant).json(&line).text("no id").work(ms(20));
                    lambda.invoke(invocation).unwrap();
                }
            });
        }
    });
    // Nothing tells of an end there: by age alone.
    kinesis.wait_for(Duration::from_secs(3), "events without any signal", |account| {
        account.of_type("platform.report").len() == 40
    });
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert!(account.containing("no id").iter().all(|event| event.request_id.is_none()));
    assert_eq!(account.containing("\"message\":\"own\"").len(), 40);
    for kind in ["platform.start", "platform.report", "function"] {
        let with_tenant = account
            .of_type(kind)
            .iter()
            .filter(|event| event.record_json().get("tenantId").is_some())
            .count();
        assert_eq!(with_tenant, 40, "{kind}");
    }
    assert!(lambda.calls().iter().any(|call| call.body.contains(r#"{"events":["SHUTDOWN"]}"#)));
}

#[test]
fn thousands_of_events_a_second_on_managed_instances() {
    let kinesis = Kinesis::builder().shards(8).start();
    let lambda = extension(&kinesis).managed_instances().setting("PARTITION_KEY", "random").start();
    lambda.init().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    lambda
                        .invoke(
                            Invocation::new()
                                .lines((0..500).map(|n| format!("line {n} {}", "x".repeat(100)))),
                        )
                        .unwrap();
                }
            });
        }
    });
    let due = Instant::now() + Duration::from_secs(30);
    let comparison = loop {
        let comparison = kinesis.account().compare(&lambda.sent());
        if kinesis.account().of_type("function").len() >= 10_000 || Instant::now() > due {
            break comparison;
        }
        std::thread::sleep(ms(20));
    };
    assert!(Instant::now() < due, "{comparison} {:?} {:?}", lambda.stderr(), lambda.stats());
    assert!(lambda.shutdown("spindown").is_clean());
    let comparison = kinesis.account().compare(&lambda.sent());
    assert!(comparison.is_lossless(), "{comparison}");
    assert_eq!(
        ledger(&kinesis)["dropped"],
        serde_json::json!({"queue": 0, "rejected": 0, "undelivered": 0})
    );
}

#[test]
fn keys_that_expire_after_hours_are_told_kept_for_and_recovered_from() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).managed_instances().setting("QUEUE_BYTES", "1048576").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("before")).unwrap();
    kinesis.wait_for(Duration::from_secs(3), "the first events", |account| {
        !account.containing("before").is_empty()
    });
    kinesis.fault(Fault::error(400, "ExpiredTokenException"));
    // More than memory holds: the rest goes to the spool.
    for _ in 0..8 {
        lambda
            .invoke(
                Invocation::new()
                    .lines((0..400).map(|n| format!("expired {n} {}", "x".repeat(500)))),
            )
            .unwrap();
    }
    assert!(lambda.drain(Duration::from_secs(5)));
    std::thread::sleep(ms(1500));
    let said: Vec<_> =
        lambda.stderr().into_iter().filter(|line| line.contains("ExpiredTokenException")).collect();
    assert!(said.len() == 1 && said[0].contains("cannot be renewed"), "{said:?}");
    kinesis.clear_faults();
    kinesis.wait_for(Duration::from_secs(10), "what waited", |account| {
        account.containing("expired").len() >= 3200
    });
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let ledger = ledger(&kinesis);
    assert!(
        ledger["spooled"].as_u64().unwrap() > 0
            && ledger["requestErrors"]["ExpiredTokenException"].as_u64().unwrap() > 0,
        "{ledger}"
    );
}

// --- other inits -----------------------------------------------------------------------------------------------------------------------

#[test]
fn provisioned_concurrency_waits_frozen_for_its_first_invocation() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .initialization_type("provisioned-concurrency")
        .freeze_after_init()
        .runtime_init(ms(30), &["made ahead"])
        .start();
    lambda.init().unwrap();
    std::thread::sleep(ms(1500));
    assert!(
        lambda.is_frozen() && kinesis.puts().is_empty(),
        "nothing is sent before an invocation pays for it"
    );
    let report = lambda.invoke(Invocation::new().text("at last")).unwrap();
    assert!(!report.deadline_exceeded && report.held < ms(500), "{:?}", report.held);
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert_eq!(account.by_process().len(), 1);
}

#[test]
fn a_shutdown_without_any_invocation_sends_the_inits_events() {
    let kinesis = Kinesis::start();
    let lambda =
        extension(&kinesis).freeze_after_init().runtime_init(ms(5), &["only init"]).start();
    lambda.init().unwrap();
    let report = lambda.shutdown("spindown");
    assert!(report.is_clean() && report.took < ms(1000), "{:?}", report.took);
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert_eq!(account.containing("only init").len(), 1);
}

#[test]
fn an_init_that_fails_is_begun_anew_with_the_invocation() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).runtime_init(ms(600), &["slow init"]).start();
    // The runtime dies in its init, and takes the sandbox with it: no SHUTDOWN, and a new process with the first invocation.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(ms(300));
            lambda.kill();
        });
        assert!(matches!(lambda.init().unwrap_err().kind, Failure::Crash(_)));
    });
    let report = lambda.invoke(Invocation::new().text("after the reset")).unwrap();
    assert_eq!(report.init.unwrap().phase, "invoke");
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let comparison = account.compare(&lambda.sent());
    assert!(
        comparison.lost.iter().all(|event| event.kind.starts_with("platform.")),
        "what the dead process had taken: {comparison}"
    );
    assert_eq!((account.containing("after the reset").len(), account.by_process().len()), (1, 1));
    let phases: Vec<_> = account
        .of_type("platform.initStart")
        .iter()
        .map(|event| event.record_json()["phase"].clone())
        .collect();
    assert!(phases.contains(&"invoke".into()), "{phases:?}");
}

#[test]
fn time_outs_reset_the_sandbox_and_lose_nothing() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(600)).start();
    lambda.init().unwrap();
    for n in 0..3 {
        let report =
            lambda.invoke(Invocation::new().text(&format!("slow {n}")).times_out()).unwrap();
        assert!(report.reset.unwrap().is_clean());
    }
    lambda.invoke(Invocation::new().text("quick")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(kinesis.account().by_process().len(), 4);
}

#[test]
fn a_tenants_id_stays_with_its_events() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).json_logs().start();
    lambda.init().unwrap();
    for tenant in ["blue", "green"] {
        let line = serde_json::json!({"level": "INFO", "message": "mine", "tenantId": tenant});
        lambda.invoke(Invocation::new().tenant(tenant).json(&line)).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    for kind in ["platform.start", "platform.runtimeDone", "platform.report", "function"] {
        let tenants: Vec<_> = account
            .of_type(kind)
            .iter()
            .map(|event| event.record_json()["tenantId"].clone())
            .collect();
        assert_eq!(tenants, ["blue", "green"], "{kind}");
    }
}

#[test]
fn emulators_without_a_telemetry_api_cost_one_line() {
    for status in [202, 404] {
        let kinesis = Kinesis::start();
        let lambda =
            extension(&kinesis).subscribe_answers(status).setting("ON_ERROR", "fail").start();
        lambda.init().unwrap();
        for _ in 0..3 {
            let report = lambda.invoke(Invocation::new().text("hello")).unwrap();
            assert!(report.held < ms(100), "{:?}", report.held);
        }
        assert!(lambda.shutdown("spindown").is_clean());
        assert_eq!(lambda.stderr().len(), 1, "{:?}", lambda.stderr());
        assert!(lambda.stderr()[0].contains(&status.to_string()));
        assert!(kinesis.puts().is_empty());
    }
}
