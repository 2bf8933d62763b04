//! The connection and the keys are ready before the function ends: what a flush needs is done while the function of a held invocation runs.
//!
//! The function of these tests ends when the simulator has seen what is to happen before; so nothing here depends on how fast a machine is.
//! No event waits while it runs: a send inside the invocation would open a connection as well.

use std::time::Duration;

use sandbox::{
    Credentials, Identity, Invocation, Kinesis, Lambda, LambdaBuilder, Proxy, ProxyFault, ms,
    wait_until,
};

use crate::{extension, ledger};

/// Far more than it takes, on any machine.
const PLENTY: Duration = Duration::from_secs(30);

fn quiet(kinesis: &Kinesis) -> LambdaBuilder {
    extension(kinesis).setting("EXCLUDE", "platform.*").timeout(2 * PLENTY)
}

/// The ledger of a sandbox that has delivered everything.
#[track_caller]
fn delivered(kinesis: &Kinesis) -> serde_json::Value {
    let ledger = ledger(kinesis);
    assert_eq!(ledger["received"], ledger["delivered"], "{ledger}");
    ledger
}

/// The function ends when `condition` holds, and says so.
fn ends_when(what: &'static str, condition: impl Fn() -> bool + Send + 'static) -> Invocation {
    Invocation::new().run(move |_| wait_until(PLENTY, what, condition)).text(what)
}

#[test]
fn no_handshake_is_left_for_the_flush() {
    for mode in ["end", "adaptive"] {
        let kinesis = Kinesis::builder().tls().round_trip(ms(2)).start();
        let lambda = quiet(&kinesis).setting("FLUSH", mode).start();
        lambda.init().unwrap();
        let handshakes = kinesis.handshakes();
        assert_eq!(handshakes(), 0, "nothing is opened in the init");
        for n in 1..=4 {
            let (puts, seen) = (kinesis.puts().len(), kinesis.handshakes());
            let report = lambda.invoke(ends_when("a handshake", move || seen() == n)).unwrap();
            assert_eq!((handshakes(), report.in_flight_at_next), (n, 0), "{mode}");
            let later = kinesis.puts().split_off(puts);
            assert_eq!(
                later.len(),
                1,
                "{mode} {n}: one request after the function's end, and none before"
            );
            // A live connection is left alone.
            lambda.invoke(Invocation::new().text("again").work(ms(20))).unwrap();
            assert_eq!(handshakes(), n, "{mode}");
            assert!(kinesis.reset_idle_connections() > 0);
        }
        assert!(lambda.shutdown("spindown").is_clean());
        let ledger = delivered(&kinesis);
        assert_eq!(ledger["retried"], 0, "no dead connection was tried");
        assert!(lambda.stderr().is_empty(), "{:?}", lambda.stderr());
    }
}

#[test]
fn an_invocation_that_is_not_held_opens_nothing() {
    let kinesis = Kinesis::builder().tls().start();
    let lambda = quiet(&kinesis).setting("FLUSH", "next").start();
    lambda.init().unwrap();
    let handshakes = kinesis.handshakes();
    for _ in 0..3 {
        lambda.invoke(Invocation::new().work(ms(100))).unwrap();
    }
    assert_eq!(handshakes(), 0);
    lambda.invoke(Invocation::new().text("something to send")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(handshakes(), 1);
    delivered(&kinesis);
}

#[test]
fn keys_are_there_before_the_function_ends() {
    let keys = Credentials {
        access_key_id: "AKIAREADYEXAMPLE".to_owned(),
        secret_access_key: "EXAMPLE/secret/of/forty/characters/or/so".to_owned(),
        session_token: Some("ready//////////token+of+the+session==".to_owned()),
    };
    let kinesis = Kinesis::builder().credentials(keys.clone()).start();
    let identity = std::sync::Arc::new(Identity::start(&keys, &keys));
    let lambda = quiet(&kinesis)
        .without_credentials()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &identity.container_url())
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", identity.token())
        .start();
    lambda.init().unwrap();
    let asked = std::sync::Arc::clone(&identity);
    lambda.invoke(ends_when("keys", move || asked.requests().len() == 1)).unwrap();
    assert_eq!((identity.requests().len(), kinesis.puts().len()), (1, 1));
    assert!(lambda.shutdown("spindown").is_clean());
    delivered(&kinesis);
}

fn through_a_proxy(kinesis: &Kinesis, proxy: &Proxy) -> Lambda {
    let lambda = quiet(kinesis)
        .without_env("AWS_ENDPOINT_URL_KINESIS")
        .env("HTTPS_PROXY", &proxy.url())
        // As much as a connection may take to open: without an interrupt nothing would be left of it for the flush.
        .setting("FLUSH_TIMEOUT_MS", "1000")
        .start();
    lambda.init().unwrap();
    lambda
}

#[test]
fn a_connection_that_is_never_ready_does_not_delay_the_flush() {
    let kinesis = Kinesis::builder().tls().start();
    let proxy = std::sync::Arc::new(Proxy::to(&kinesis));
    let lambda = through_a_proxy(&kinesis, &proxy);
    proxy.fault(ProxyFault::Drip(ms(20)), 1);
    let seen = std::sync::Arc::clone(&proxy);
    lambda.invoke(ends_when("a tunnel", move || seen.requests().len() == 1)).unwrap();
    assert_eq!(kinesis.account().containing("a tunnel").len(), 1, "{:?}", lambda.stderr());
    assert_eq!(proxy.requests().len(), 2);
    assert!(lambda.shutdown("spindown").is_clean());
    let ledger = delivered(&kinesis);
    assert_eq!(ledger["requestErrors"], serde_json::json!({}), "nothing was requested");
    assert!(lambda.stderr().is_empty(), "{:?}", lambda.stderr());
}
