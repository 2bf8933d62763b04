//! The rooms and the arrows between them: all in the direction of the data, and no circle anywhere. The arrows are read out of the source.
//!
//! `ARROWS=1 cargo test --test it architecture -- --nocapture` prints them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rooms, in the order that data walks through them.
const ROOMS: [&str; 3] = ["lambda", "dispatch", "kinesis"];
/// What stands above the rooms and wires them. Nothing below names it.
const ABOVE: [&str; 6] = ["main.rs", "lib.rs", "extension.rs", "wiring.rs", "check.rs", "config/"];
/// Of a room, what another room may name where not all of it is for others.
const DOORS: [(&str, &str, &[&str]); 1] =
    [("lambda/", "dispatch/", &["dispatch/admission.rs", "dispatch/message.rs"])];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The files under `src` by name, and the code of each: without its tests and comments.
fn code() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&src).unwrap().display().to_string();
        (name, without_comments(text.split("#[cfg(test)]\nmod tests").next().unwrap()))
    };
    sources(&src).into_iter().map(read).collect()
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The paths that a file names, from the crate's root: those of its `use` declarations, and those that begin with `crate`, `super`, `self` or
/// with a name that a `use` brought in.
fn paths(name: &str, code: &str) -> BTreeSet<Vec<String>> {
    let module: Vec<String> = module_of(name);
    let mut found = BTreeSet::new();
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut rest = String::new();
    for (n, part) in code.split(';').enumerate() {
        // A `use` begins a statement, behind attributes and `pub`.
        let at = part.rfind("use ").filter(|at| {
            part[..*at].lines().last().unwrap_or("").trim().is_empty()
                || part[..*at].trim_end().ends_with("pub")
        });
        let Some(at) = at else {
            rest.push_str(if n == 0 { "" } else { ";" });
            rest.push_str(part);
            continue;
        };
        rest.push_str(&part[..at]);
        for path in tree(&part[at + 4..]) {
            let (path, alias) = path
                .split_once(" as ")
                .map_or((path.as_str(), None), |(path, alias)| (path, Some(alias)));
            if let Some(path) = absolute(&module, path) {
                let last =
                    alias.map(str::to_owned).or_else(|| path.last().cloned()).unwrap_or_default();
                names.insert(last, path.clone());
                found.insert(path);
            }
        }
    }
    for path in inline_paths(&rest) {
        let (first, behind) = path.split_once("::").unwrap();
        match names.get(first) {
            Some(known) => {
                let behind = behind.split("::").map(str::to_owned);
                found.insert(known.iter().cloned().chain(behind).collect());
            }
            None => found.extend(absolute(&module, &path)),
        }
    }
    found
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn tree(text: &str) -> Vec<String> {
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(open) = text.find('{') else { return vec![text.trim().to_owned()] };
    let (head, inside) = (text[..open].trim(), text[open + 1..].trim_end().trim_end_matches('}'));
    let (mut depth, mut parts) = (0, vec![String::new()]);
    // The last brace was cut off with those around it, so the depth may not come back to zero.
    for c in inside.chars() {
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            c => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                parts.last_mut().unwrap().push(c);
            }
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| tree(part.trim())).map(|path| format!("{head}{path}")).collect()
}

/// What looks like a path in code: two names at least.
fn inline_paths(code: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c| !is_part(c)).map(|word| word.trim_matches(':'));
    words.filter(|word| word.contains("::")).map(str::to_owned).collect()
}

/// A path from the crate's root; `None` for one that leads elsewhere.
fn absolute(module: &[String], path: &str) -> Option<Vec<String>> {
    let mut at = Vec::new();
    let mut parts = path.split("::").map(str::trim).peekable();
    match *parts.peek()? {
        "crate" | "kinesis_telemetry_extension" => {
            parts.next();
        }
        "self" | "super" => {
            at = module.to_vec();
            while let Some(part) = parts.next_if(|part| ["self", "super"].contains(part)) {
                if part == "super" {
                    at.pop();
                }
            }
        }
        _ => return None,
    }
    at.extend(parts.filter(|part| *part != "self").map(str::to_owned));
    Some(at)
}

/// `kinesis/mod.rs` is `kinesis`, `kinesis/line.rs` is `kinesis::line`.
fn module_of(name: &str) -> Vec<String> {
    let name = name.trim_end_matches(".rs").trim_end_matches("/mod");
    let parts = name.split('/').map(str::to_owned);
    parts.filter(|part| !["main", "lib"].contains(&part.as_str())).collect()
}

/// The file that a path leads into: that of the longest part of it that is a module.
fn file_of<'a>(path: &[String], files: &'a BTreeMap<String, String>) -> Option<&'a str> {
    (1..=path.len()).rev().find_map(|length| {
        let place = path.get(..length)?.join("/");
        [format!("{place}.rs"), format!("{place}/mod.rs")]
            .iter()
            .find_map(|name| files.get_key_value(name))
            .map(|(name, _)| name.as_str())
    })
}

/// From each file to all others that it names.
fn arrows(files: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let to = |name: &str, code: &str| {
        let paths = paths(name, code);
        paths.iter().filter_map(|path| file_of(path, files)).filter(|to| *to != name).collect()
    };
    files.iter().map(|(name, code)| (name.as_str(), to(name, code))).collect()
}

/// A circle, if there is one: each file names the next, and the last the first.
fn circle<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    // What names nothing that is left is on no circle.
    let mut left = arrows.clone();
    while let Some(free) = left
        .iter()
        .find(|(_, to)| !to.iter().any(|to| arrows.contains_key(to) && left.contains_key(to)))
    {
        let free = *free.0;
        left.remove(free);
    }
    let mut chain = vec![*left.keys().next()?];
    loop {
        let next = *left.get(chain.last()?)?.iter().find(|to| left.contains_key(*to))?;
        if let Some(at) = chain.iter().position(|known| *known == next) {
            return Some(chain.split_off(at));
        }
        chain.push(next);
    }
}

fn room(name: &str) -> Option<usize> {
    ROOMS.iter().position(|room| name.starts_with(&format!("{room}/")))
}

#[test]
fn the_reader_of_arrows_finds_each_kind_of_path() {
    let code = "use crate::clock::{self, EpochMs as Ms};\npub use super::http;\nuse crate::{log, kinesis::{line, sts::Role}};\nfn f() -> crate::json::X { clock::now(); http::client::get(); super::tls::new(); std::fs::read() }";
    let found = paths("kinesis/sign.rs", code);
    let found: BTreeSet<String> = found.iter().map(|path| path.join("::")).collect();
    let expected = [
        "clock",
        "clock::EpochMs",
        "clock::now",
        "json::X",
        "kinesis::http",
        "kinesis::http::client::get",
        "kinesis::line",
        "kinesis::sts::Role",
        "kinesis::tls::new",
        "log",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
    let arrows = |pairs: &[(&'static str, &[&'static str])]| {
        pairs
            .iter()
            .map(|(from, to)| (*from, to.iter().copied().collect()))
            .collect::<BTreeMap<_, BTreeSet<_>>>()
    };
    assert_eq!(circle(&arrows(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])), None);
    assert_eq!(
        circle(&arrows(&[("a", &["b"]), ("b", &["c", "d"]), ("c", &[]), ("d", &["b"])])),
        Some(vec!["b", "d"])
    );
}

#[test]
#[allow(clippy::print_stdout, reason = "only for who asks for it")]
fn no_file_names_another_that_names_it() {
    let files = code();
    let arrows = arrows(&files);
    if std::env::var_os("ARROWS").is_some() {
        for (from, to) in &arrows {
            println!("{from} -> {}", to.iter().copied().collect::<Vec<_>>().join(", "));
        }
    }
    assert!(arrows.values().map(BTreeSet::len).sum::<usize>() > 100, "arrows are found at all");
    let circle = circle(&arrows);
    assert!(circle.is_none(), "a circle: {}", circle.unwrap().join(" -> "));
}

#[test]
fn rooms_know_only_what_lies_downstream() {
    let files = code();
    for (from, to) in arrows(&files) {
        for to in to {
            let is_above = |name: &str| ABOVE.iter().any(|above| name.starts_with(above));
            assert!(is_above(from) || !is_above(to), "{from} names {to}, which is above it");
            match (room(from), room(to)) {
                (Some(from_room), Some(to_room)) => {
                    assert!(from_room <= to_room, "{from} names {to}, which is upstream of it")
                }
                (None, Some(_)) => {
                    assert!(is_above(from), "{from} is for all rooms, and names {to}")
                }
                _ => {}
            }
            for (inside, place, doors) in DOORS {
                let outside = from.starts_with(inside) && to.starts_with(place);
                assert!(
                    !outside || doors.contains(&to),
                    "{from} names {to}, which is not for {inside}"
                );
            }
        }
    }
}

/// The shells: what carries out, on a thread, over a socket, by a clock, on the disk. All other files decide, and have none of these.
const SHELLS: [&str; 30] = [
    "main.rs",
    "extension.rs",
    "wiring.rs",
    "check.rs",
    "log.rs",
    "mailbox.rs",
    "panic.rs",
    "random.rs",
    "sandbox.rs",
    "lambda/api.rs",
    "lambda/api_client.rs",
    "lambda/choosing.rs",
    "lambda/connections.rs",
    "lambda/handover.rs",
    "lambda/listener.rs",
    "lambda/reading_room.rs",
    "lambda/reading.rs",
    "dispatch/admission.rs",
    "dispatch/dispatcher.rs",
    "dispatch/doorbell.rs",
    "dispatch/printer.rs",
    "dispatch/spool.rs",
    "dispatch/spool_file.rs",
    "kinesis/client.rs",
    "kinesis/clock_skew.rs",
    "kinesis/http.rs",
    "kinesis/provider.rs",
    "kinesis/small_file.rs",
    "kinesis/sts.rs",
    "kinesis/transport.rs",
];

#[test]
fn what_decides_has_no_thread_socket_clock_disk_randomness_or_log() {
    let files = code();
    let arrows = arrows(&files);
    for (name, code) in &files {
        if SHELLS.contains(&name.as_str()) {
            continue;
        }
        for word in [
            "thread::",
            "std::net",
            "mpsc",
            "Condvar",
            "Instant::now",
            "SystemTime::now",
            "std::fs",
            "File::",
            "std::env",
            "stdout()",
            "stderr()",
        ] {
            assert!(!code.contains(word), "{name} has {word}");
        }
        let paths = paths(name, code);
        // How loud a line is to be is no I/O, and neither is its form.
        let log = paths.iter().find(|path| {
            path.first().is_some_and(|first| first == "log")
                && !path.get(1).is_some_and(|what| ["Level", "Format"].contains(&what.as_str()))
        });
        assert!(log.is_none() || name.starts_with("config/"), "{name} names the log");
        // The keys of PARTITION_KEY=random.
        let random = paths.iter().any(|path| path.first().is_some_and(|first| first == "random"));
        assert!(!random || name == "kinesis/request.rs", "{name} names randomness");
        let of_a_room = |to: &&str| room(to).is_some() && SHELLS.contains(to);
        let shell = arrows[name.as_str()].iter().copied().find(of_a_room);
        assert!(
            shell.is_none()
                || name.ends_with("mod.rs")
                || ABOVE.iter().any(|above| name.starts_with(above)),
            "{name} names a shell, {}",
            shell.unwrap_or_default()
        );
    }
}

#[test]
fn the_environment_is_read_and_signatures_are_made_in_one_place() {
    for (name, code) in code() {
        for (word, places) in [
            ("aws_sigv4", &["kinesis/sign.rs"][..]),
            ("tiny_http", &["lambda/listener.rs"]),
            ("std::env::var", &["main.rs", "panic.rs"]),
        ] {
            assert!(!code.contains(word) || places.contains(&name.as_str()), "{name} has {word}");
        }
    }
}

/// They ask the CPU what it can do when they are first used. In a virtual machine the hypervisor answers each such question: together they took
/// a quarter of the CPU until the first `/next`.
#[test]
fn what_runs_before_the_first_next_asks_nothing_of_the_cpu() {
    let code = code();
    for name in [
        "main.rs",
        "extension.rs",
        "wiring.rs",
        "sandbox.rs",
        "random.rs",
        "config/environment.rs",
        "config/mod.rs",
        "config/reader.rs",
        "lambda/api.rs",
        "lambda/api_client.rs",
        "lambda/destination.rs",
        "lambda/framing.rs",
        "lambda/listener.rs",
    ] {
        for word in ["memchr", "sha2", "base64_simd", "crc32fast"] {
            assert!(!code[name].contains(word), "{name} has {word}");
        }
    }
}

#[test]
fn main_is_short_and_files_are_not_long() {
    for (name, code) in code() {
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= 550, "{name} has {lines} lines of code");
    }
}

/// rustfmt puts a function's closing brace under its first word.
#[test]
fn no_function_is_longer_than_a_screen_and_a_half() {
    let mut functions = 0;
    for (name, code) in code() {
        let lines: Vec<&str> = code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let word = line.trim_start();
            let is_public = word.starts_with("pub") && line.contains(" fn ");
            if !word.starts_with("fn ") && !is_public {
                continue;
            }
            let end = format!("{}}}", " ".repeat(line.len() - word.len()));
            let length = lines[at..].iter().position(|line| *line == end).unwrap_or_default();
            functions += 1;
            assert!(length < 100, "{name}: {word} has {length} lines");
        }
    }
    assert!(functions > 400, "{functions}: functions are found at all");
}

/// What an error means, and what to do about it, is written down once.
#[test]
fn codes_of_aws_stand_in_one_file() {
    for (name, code) in code() {
        for word in [
            "Exception\"",
            "ExpiredToken",
            "AccessDenied",
            "InternalFailure",
            "ServiceUnavailable",
            "SignatureDoesNotMatch",
            "Throttling",
        ] {
            // The bare word is how classes of Java end.
            let holds = |line: &&str| line.replace("b\"Exception\"", "").contains(word);
            let named = code.lines().find(holds);
            assert!(
                named.is_none() || name == "kinesis/error.rs",
                "{name}: {}",
                named.unwrap_or_default()
            );
        }
    }
}
