//! The rooms and the arrows between them: all in the direction of the data.

use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The code of a file under `src`, without its tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

#[test]
fn rooms_know_only_what_lies_downstream() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    // A file or folder, what it may not name, and the one exception.
    let rules: [(&str, &[&str], &str); 8] = [
        ("kinesis", &["crate::lambda", "crate::dispatch"], ""),
        ("dispatch", &["crate::lambda"], ""),
        ("lambda/api.rs", &["crate::dispatch", "crate::kinesis", "listener"], ""),
        ("lambda/destination.rs", &["crate::", "api", "listener"], ""),
        (
            "lambda/listener.rs",
            &["crate::dispatch::", "crate::kinesis", "api"],
            "crate::dispatch::{admission::Admission, message}",
        ),
        ("event.rs", &["crate::lambda", "crate::dispatch", "crate::kinesis"], ""),
        ("ledger.rs", &["crate::lambda", "crate::dispatch", "crate::kinesis"], ""),
        ("sandbox.rs", &["crate::lambda", "crate::dispatch", "crate::kinesis"], ""),
    ];
    for (place, forbidden, exception) in rules {
        let path = src.join(place);
        let files = if path.is_dir() { sources(&path) } else { vec![path] };
        for file in files {
            for line in code(&file)
                .lines()
                .filter(|line| line.trim_start().starts_with("use ") || line.contains("crate::"))
            {
                let named = forbidden.iter().find(|name| line.contains(*name));
                assert!(
                    named.is_none() || (!exception.is_empty() && line.contains(exception)),
                    "{} names {}: {line}",
                    file.display(),
                    named.unwrap()
                );
            }
        }
    }
}

#[test]
fn pure_files_have_no_thread_socket_clock_or_log() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for place in [
        "lambda/destination.rs",
        "lambda/envelope.rs",
        "lambda/fields.rs",
        "lambda/filter.rs",
        "lambda/intake.rs",
        "lambda/repair.rs",
        "lambda/text_log.rs",
        "dispatch/backlog.rs",
        "dispatch/core.rs",
        "dispatch/invocations.rs",
        "dispatch/message.rs",
        "dispatch/packer.rs",
        "dispatch/policy.rs",
        "dispatch/retry.rs",
        "dispatch/sending.rs",
        "dispatch/spool_index.rs",
        "dispatch/stopping.rs",
        "dispatch/watchdog.rs",
        "kinesis/line.rs",
        "kinesis/request.rs",
        "kinesis/endpoint.rs",
        "kinesis/error.rs",
        "kinesis/response.rs",
        "kinesis/credentials.rs",
        "kinesis/proxy.rs",
        "deadline.rs",
    ] {
        // How loud a line is to be is no I/O.
        let code = code(&src.join(place)).replace("crate::log::Level", "");
        for word in
            ["std::thread", "std::net", "Instant::now", "SystemTime::now", "crate::log", "std::env"]
        {
            assert!(!code.contains(word), "{place} has {word}");
        }
    }
}

#[test]
fn the_environment_is_read_and_signatures_are_made_in_one_place() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&src) {
        let code = code(&file);
        let name = file.strip_prefix(&src).unwrap().display().to_string();
        let uses = |word: &str| {
            code.lines().any(|line| line.contains(word) && !line.trim_start().starts_with("//"))
        };
        assert!(!uses("aws_sigv4") || name == "kinesis/sign.rs", "{name}");
        assert!(
            !uses("std::env::var") || ["main.rs", "panic.rs"].contains(&name.as_str()),
            "{name}"
        );
        assert!(!uses("tiny_http") || name == "lambda/listener.rs", "{name}");
    }
}

#[test]
fn main_is_short_and_files_are_not_long() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&src) {
        let code = code(&file)
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
            .count();
        assert!(code <= 550, "{} has {code} lines of code", file.display());
    }
}

/// What an error means, and what to do about it, is written down once.
#[test]
fn codes_of_aws_stand_in_one_file() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&src) {
        let name = file.strip_prefix(&src).unwrap().display().to_string();
        let code = code(&file);
        for word in [
            "Exception\"",
            "ExpiredToken",
            "AccessDenied",
            "InternalFailure",
            "ServiceUnavailable",
            "SignatureDoesNotMatch",
            "Throttling",
        ] {
            let named = code
                .lines()
                .find(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert!(
                named.is_none() || name == "kinesis/error.rs",
                "{name}: {}",
                named.unwrap_or_default()
            );
        }
    }
}
