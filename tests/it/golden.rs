//! Telemetry as Lambda, its emulator and several vendors' programs have shown it, replayed through
//! the built binary and compared whole with what must arrive on the stream. The cases are the files
//! of `tests/golden`; its README has their format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use sandbox::{Account, Kinesis, Lambda, SentEvent, StoredEvent, iso_millis};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{extension, ledger};

/// One test for each file; a test below holds this list to the folder.
macro_rules! cases {
    ($($name:ident)*) => {
        const CASES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { check(stringify!($name)); })*
    };
}

cases! {
    batch_posted_twice
    bodies_that_are_no_events
    bytes_that_are_no_utf8
    characters
    cold_start_2022
    cold_start_2025
    crash
    cut_across_posts
    cut_after_whole_events
    cut_and_lost
    cut_at_the_end_of_a_life
    cut_behind_a_point
    cut_beside_brackets
    cut_extension_log
    cut_in_a_character
    cut_in_a_literal
    cut_in_a_number
    cut_list_of_times
    cut_lost_before_a_number
    cut_lost_before_another_type
    cut_neighbour_of_another_type
    cut_of_full_size
    cut_runtime_done_behind
    cut_several_times
    cut_text
    cut_twice_lost_once
    cut_with_a_record_key_inside
    cut_within_a_post
    dotnet_json
    dotnet_levels
    dotnet_text
    durable_function
    empty_arrays_and_objects
    every_json_type
    extension_crash
    function_error
    function_timeout
    go_json
    go_levels
    go_text
    init_error
    init_timeout
    java_json
    java_text
    json_in_text
    key_order_and_blanks
    late_events
    late_report_after_reset
    levels_of_a_vendor
    log_of_telemetry
    log_of_telemetry_with_numbers
    logs_dropped
    managed_instances
    managed_instances_java
    node_json
    node_text
    numbers
    out_of_memory
    platform_left_out
    powertools_python
    powertools_typescript
    provisioned_concurrency
    python_json
    python_text
    records_that_begin_with_time
    request_id_of_somebody_else
    response_streaming
    ruby_json
    ruby_text
    rust_text
    slim_and_tags
    snapstart_log_stream
    snapstart_restore
    snapstart_restore_error
    structured_records
    suppressed_init
    tags
    tenant_isolation
    tenant_of_a_log
    trace_ids_of_loggers
    tracing_headers
    unknown_events
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn every_file_is_a_case_with_a_source() {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let files =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut names: Vec<String> =
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    let mut listed: Vec<&str> = CASES.to_vec();
    listed.sort_unstable();
    assert_eq!(names, listed);
    for name in names {
        let case = Case::read(&name);
        assert!(
            case.source.contains('/') && !case.shows.is_empty() && !case.posts.is_empty(),
            "{name}"
        );
        assert!(case.pending.is_none_or(|why| !why.is_empty()), "{name}");
    }
}

/// Replays one file. A case that is marked as pending must still fail, so that the mark goes when
/// the program is right.
#[track_caller]
fn check(name: &str) {
    let case = Case::read(name);
    match (replay(&case), &case.pending) {
        (Ok(()), None) => {}
        (Err(differences), None) => panic!("{name}: {}\n{differences}", case.shows),
        (Err(_), Some(_)) => {}
        (Ok(()), Some(why)) => {
            panic!("{name} is no longer pending ({why}): remove the mark from its file")
        }
    }
}

/// A file of `tests/golden`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    source: String,
    shows: String,
    pending: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    initialization: Option<String>,
    posts: Vec<Box<RawValue>>,
    #[serde(default)]
    always: Object,
    expected: Vec<Object>,
    #[serde(default)]
    ledger: BTreeMap<String, serde_json::Value>,
}

impl Case {
    fn read(name: &str) -> Case {
        let path = folder().join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&unfold(&text)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// What the extension adds to every event of this case: what the simulated sandbox is, or what
    /// the file says instead.
    fn added(&self, kinesis: &Kinesis, lambda: &Lambda) -> Object {
        if self.settings.get("ENVELOPE").is_some_and(|envelope| envelope == "slim") {
            return self.always.clone();
        }
        let start = lambda
            .sent()
            .into_iter()
            .find(|event| event.kind == "platform.initStart")
            .expect("the simulator's own init");
        let start: serde_json::Value = serde_json::from_slice(&start.record).unwrap();
        let known = [
            ("functionName", "orders".into()),
            ("functionVersion", "$LATEST".into()),
            ("accountId", "123456789012".into()),
            ("region", kinesis.region().into()),
            ("logStream", start["instanceId"].clone()),
        ];
        let known = known
            .map(|(key, value): (&str, serde_json::Value)| (key.to_owned(), value.to_string()));
        let mut all = self.always.clone();
        all.add(&Object(known.to_vec()));
        all
    }
}

/// `%{A*300}` is 300 times `A`: long records stay readable.
fn unfold(text: &str) -> String {
    let mut pieces = text.split("%{");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (fold, rest) = piece.split_once('}').expect("an end of %{");
        let (unit, count) = fold.rsplit_once('*').expect("a count after the last * of %{");
        out.push_str(&unit.repeat(count.parse().expect("a number in %{")));
        out.push_str(rest);
    }
    out
}

/// A step of `posts` that is not simply a list of events or the text of a body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Step {
    /// The process is ended with this reason, and another one started.
    Reset(String),
    /// A body that is no text: `%e2` stands for a byte.
    Bytes(String),
}

/// The bytes of a text in which `%e2` stands for a byte.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).expect("two hex digits after %"));
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}

/// Runs the extension through the case; says what is different on the stream.
fn replay(case: &Case) -> Result<(), String> {
    let began = iso_millis(SystemTime::now());
    let kinesis = Kinesis::start();
    // Nothing is sent before SHUTDOWN, so that each event has all that its sandbox has learnt by
    // then.
    let mut builder =
        extension(&kinesis).setting("MAX_AGE_MS", "900000").without_freeze().without_feedback();
    builder = match case.initialization.as_deref() {
        Some("lambda-managed-instances") => builder.managed_instances(),
        Some(other) => builder.initialization_type(other),
        None => builder,
    };
    for (name, value) in &case.settings {
        builder = builder.setting(name, value);
    }
    let lambda = builder.start();
    start(&lambda);
    for step in &case.posts {
        match step.get().as_bytes().first() {
            Some(b'{') => match serde_json::from_str(step.get()).expect("a step") {
                Step::Reset(reason) => {
                    assert!(lambda.reset(&reason).is_clean(), "{:?}", lambda.stderr());
                    start(&lambda);
                }
                Step::Bytes(text) => post(&lambda, &percent_decoded(&text)),
            },
            Some(b'"') => {
                post(&lambda, serde_json::from_str::<String>(step.get()).unwrap().as_bytes())
            }
            _ => post(&lambda, compact(step.get()).as_bytes()),
        }
    }
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let account = kinesis.account();
    assert!(
        account.broken.is_empty(),
        "no JSON on the stream: {:?}",
        account.broken.iter().map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>()
    );

    let arrived = arrived(&account, &lambda.sent(), &began)?;
    let mut differences = compare(&expected(case, &case.added(&kinesis, &lambda)), &arrived);
    let ledger = ledger(&kinesis);
    for (key, value) in &case.ledger {
        if ledger[key] != *value {
            let _ = writeln!(differences, "ledger: {key} is {}, not {value}", ledger[key]);
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(differences) }
}

/// Starts a process of the extension; what the simulator has to say of that comes first.
fn start(lambda: &Lambda) {
    lambda.init().unwrap();
    assert!(lambda.drain(sandbox::ms(10_000)), "the simulator's own events were not taken");
}

fn post(lambda: &Lambda, body: &[u8]) {
    assert_eq!(lambda.post_raw(body).unwrap(), 200);
}

/// The events on the stream that came from the file, in the order that the extension took them,
/// with ids that are the same each time: `A-1` is the first of the first process.
fn arrived(account: &Account, simulated: &[SentEvent], began: &str) -> Result<Vec<Object>, String> {
    let mut processes: Vec<&str> = Vec::new();
    let mut own: BTreeMap<&str, u64> = BTreeMap::new();
    let mut events = Vec::new();
    let is_simulated = |event: &&StoredEvent| {
        simulated.iter().any(|sent| {
            (&sent.time, &sent.kind, &sent.record) == (&event.time, &event.kind, &event.record)
        })
    };
    for event in account.events.iter().filter(|event| !event.is_own()) {
        let (process, number) =
            event.id().ok_or_else(|| format!("without an event id: {}", event.text()))?;
        if !processes.contains(&process) {
            processes.push(process);
        }
        if is_simulated(&event) {
            *own.entry(process).or_default() += 1;
        } else {
            events.push((
                processes.iter().position(|known| *known == process),
                number,
                process,
                event,
            ));
        }
    }
    events.sort_by_key(|(process, number, ..)| (*process, *number));
    let now = iso_millis(SystemTime::now());
    let object = |(position, number, process, event): (Option<usize>, u64, &str, &StoredEvent)| {
        let letter = char::from(b'A' + u8::try_from(position.unwrap_or_default()).unwrap());
        let number = number - own.get(process).copied().unwrap_or_default();
        let mut object: Object = serde_json::from_slice(&event.line)
            .map_err(|error| format!("{error}: {}", event.text()))?;
        object.set("eventId", format!("\"{letter}-{number}\""));
        // What was past repair has the time at which it came.
        if event.kind == "unparsed" && (began..=now.as_str()).contains(&event.time.as_str()) {
            object.set("time", "\"$now\"".to_owned());
        }
        Ok(object)
    };
    events.into_iter().map(object).collect()
}

/// The events of the file, with what each of them must have besides.
fn expected(case: &Case, added: &Object) -> Vec<Object> {
    let mut process = 'A';
    let mut number = 0;
    let complete = |event: &Object| {
        let mut event = event.clone();
        number += 1;
        match event.get("eventId").map(|id| id.trim_matches('"').to_owned()) {
            // Where it is not said, it is the next number.
            None => event.0.push(("eventId".to_owned(), format!("\"{process}-{number}\""))),
            Some(id) => {
                let (letter, digits) = id.split_once('-').expect("an event id like A-1");
                (process, number) = (letter.parse().unwrap(), digits.parse().unwrap());
            }
        }
        event.add(added);
        // An added key that is null in the file is not to be there.
        event.0.retain(|(key, value)| value != "null" || !ADDED.contains(&key.as_str()));
        event.0.iter_mut().for_each(|(_, value)| *value = as_written(value));
        event
    };
    case.expected.iter().map(complete).collect()
}

/// A value of the file as Lambda writes it, without blanks; where the blanks matter it is given as
/// text: `{"$raw": "{ \"a\" : 1 }"}`.
fn as_written(value: &str) -> String {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        #[serde(rename = "$raw")]
        raw: String,
    }
    serde_json::from_str::<Raw>(value).map_or_else(|_| compact(value), |text| text.raw)
}

fn compare(expected: &[Object], arrived: &[Object]) -> String {
    let mut differences = String::new();
    for at in 0..expected.len().max(arrived.len()) {
        let [wanted, got] = [expected, arrived].map(|events| events.get(at).map(Object::canonical));
        if wanted != got {
            let (wanted, got) = (wanted.unwrap_or_default(), got.unwrap_or_default());
            let same =
                wanted.bytes().zip(got.bytes()).take_while(|(wanted, got)| wanted == got).count();
            let _ = writeln!(
                differences,
                "event {}: expected\n    {}\n  arrived\n    {}",
                at + 1,
                around(&wanted, same),
                around(&got, same)
            );
        }
    }
    differences
}

/// The line, or what is near `at` of a long one.
fn around(line: &str, at: usize) -> String {
    if line.len() <= 2000 {
        return line.to_owned();
    }
    let end = line.len();
    let shown = line
        .get(line.floor_char_boundary(at.saturating_sub(300))..line.floor_char_boundary(at + 300))
        .unwrap_or_default();
    format!("({end} bytes) …{shown}…")
}

/// A JSON object with its keys in their order, and its values as they stand, without blanks between
/// their tokens.
#[derive(Clone, Debug, Default)]
struct Object(Vec<(String, String)>);

/// What the extension adds. Their order is not fixed; that of Lambda's own keys is.
const ADDED: [&str; 14] = [
    "requestId",
    "eventId",
    "traceId",
    "tenantId",
    "executionArn",
    "functionName",
    "functionVersion",
    "functionArn",
    "accountId",
    "region",
    "logStream",
    "coldStart",
    "tags",
    "truncatedBytes",
];

impl Object {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, key: &str, value: String) {
        self.0.iter_mut().filter(|(name, _)| name == key).for_each(|(_, old)| *old = value.clone());
    }

    /// Adds the keys that it does not have.
    fn add(&mut self, others: &Object) {
        let missing: Vec<_> =
            others.0.iter().filter(|(key, _)| self.get(key).is_none()).cloned().collect();
        self.0.extend(missing);
    }

    /// Lambda's keys first, in their order, then the added ones, sorted.
    fn canonical(&self) -> String {
        let (mut added, own): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|(key, _)| ADDED.contains(&key.as_str()));
        added.sort();
        let pairs: Vec<String> =
            own.into_iter().chain(added).map(|(key, value)| format!("{key:?}:{value}")).collect();
        format!("{{{}}}", pairs.join(","))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    pairs.push((key, value.get().to_owned()));
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// JSON without the blanks between its tokens, and nothing else changed.
fn compact(json: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let keep = |c: &char| {
        let inside = quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => {}
        }
        inside || !matches!(c, ' ' | '\n' | '\r' | '\t')
    };
    json.chars().filter(keep).collect()
}
