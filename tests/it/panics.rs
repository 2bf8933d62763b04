//! A panic in any thread: the function lives, and is not held.

use std::path::PathBuf;
use std::process::Command;

use sandbox::{Invocation, Kinesis, Lambda, ms};

/// The binary with the switch that makes it panic, built on demand: it must be one that aborts on panic, as a release does.
fn binary_with_a_switch() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/panic-switch");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let built = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--bin",
            "kinesis-telemetry-extension",
            "--features",
            "panic-switch",
            "--profile",
            "panic-switch",
        ])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success());
    target.join("panic-switch/kinesis-telemetry-extension")
}

#[test]
fn a_panic_in_any_thread_leaves_the_function_alone() {
    let binary = binary_with_a_switch();
    for place in ["listener", "dispatcher", "main"] {
        let kinesis = Kinesis::start();
        let lambda = Lambda::builder(&binary)
            .kinesis(&kinesis)
            .tmp_in("TMPDIR")
            .setting("FLUSH", "end")
            .env("PANIC_SWITCH", place)
            .start();
        lambda.init().unwrap();
        for _ in 0..4 {
            let report = lambda.invoke(Invocation::new().text("hello").work(ms(60))).unwrap();
            assert!(!report.deadline_exceeded, "{place}");
            // Noticed at once, not at the invocation's deadline after 3 s.
            assert!(report.held < ms(1500), "{place}: {:?}", report.held);
        }
        let shutdown = lambda.shutdown("spindown");
        assert!(shutdown.is_clean(), "{place}: {shutdown:?} {:?}", lambda.stderr());
        let lines = lambda.stderr();
        assert!(
            lines
                .iter()
                .filter(|line| line.contains(&format!("the {place} thread panicked")))
                .count()
                == 1,
            "{place}: {lines:?}"
        );
        assert!(lines.len() <= 2, "{place}: {lines:?}");
    }
}
