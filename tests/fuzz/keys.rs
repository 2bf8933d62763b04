//! Events whose keys stand in any order and spelling, held to what serde reads of them: Lambda's
//! three keys come first, values stay byte for byte but for line ends, and all others follow.

use fastrand::Rng;
use kinesis_telemetry_extension::lambda::intake::{Intake, Signal};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::windows::{Given, in_windows};
use crate::{ALL, events, lines, mutate, rounds};

/// The keys and values of an object, in their order, as they stand there.
struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    pairs.push((key.get(), value.get()));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// How an event of these keys and values is written, without its closing brace; `None` if it is no
/// event.
fn written(pairs: &[(&str, &str)]) -> Option<String> {
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
    const LAMBDAS: [&str; 3] = ["time", "type", "record"];
    let mut found = LAMBDAS.map(|_| None);
    let mut others = Vec::new();
    for (key, value) in pairs {
        let name = serde_json::from_str::<String>(key).unwrap_or_default();
        match LAMBDAS.iter().position(|known| *known == name) {
            Some(at) if found[at].is_none() => found[at] = Some(*value),
            place => {
                let is_taken = place.is_some() || ADDED.contains(&name.as_str());
                let before = if is_taken { "\"lambda." } else { "\"" };
                others.push(format!("{before}{}:{value}", &key[1..]));
            }
        }
    }
    if !found[1]?.starts_with('"') || others.len() > 64 {
        return None;
    }
    let known = LAMBDAS.iter().zip(found);
    let known = known.filter_map(|(name, value)| Some(format!("\"{name}\":{}", value?)));
    let all: Vec<String> = known.chain(others).collect();
    Some(format!("{{{}", all.join(",")).replace(['\n', '\r'], " "))
}

/// What serde reads of a body that is an array of events.
fn by_serde(body: &[u8]) -> Option<Vec<String>> {
    let all: Vec<Pairs<'_>> = serde_json::from_slice(body).ok()?;
    all.iter().map(|Pairs(pairs)| written(pairs)).collect()
}

fn check(given: &Given, expected: &[String], body: &[u8]) {
    let body = || String::from_utf8_lossy(body);
    assert_eq!(given.lines.len(), expected.len(), "{}", body());
    for (line, text) in given.lines.iter().zip(expected) {
        let behind = line.strip_prefix(text.as_str());
        assert!(
            behind.is_some_and(|behind| behind.starts_with([',', '}'])),
            "{line} is not {text} in {}",
            body()
        );
    }
}

/// Signals and lines, without the half of each event's id that is the process's own.
fn read(mut intake: Intake, body: &str) -> (Vec<Signal>, Vec<String>) {
    let taken = intake.take(body.as_bytes().to_vec(), 0);
    let without_process = |line: String| {
        let (before, id) = line.split_once("\"eventId\":\"").unwrap();
        format!("{before}{}", id.split_once('-').unwrap().1)
    };
    (taken.signals, lines(&taken.batch).into_iter().map(without_process).collect())
}

/// A key in one of its spellings, quotes included.
fn spelled(rng: &mut Rng, name: &str) -> String {
    let escapes = rng.u8(0..4) == 0;
    let letter = |letter: char| match rng.u8(0..4) {
        0 if escapes => format!("\\u{:04x}", u32::from(letter)),
        1 if escapes => format!("\\u{:04X}", u32::from(letter)),
        _ => letter.to_string(),
    };
    format!("\"{}\"", name.chars().map(letter).collect::<String>())
}

fn blank(rng: &mut Rng) -> &'static str {
    const BLANKS: [&str; 12] = ["", "", "", "", "", "", "", "", " ", "\t", "\n", " \r\n "];
    BLANKS[rng.usize(0..BLANKS.len())]
}

/// An event with keys that Lambda may send, in any order.
fn event(rng: &mut Rng) -> String {
    const TYPES: [&str; 9] = [
        r#""function""#,
        r#""function""#,
        r#""extension""#,
        r#""platform.start""#,
        r#""platform.runtimeDone""#,
        r#""platform.report""#,
        r#""platform.restoreStart""#,
        r#""novel""#,
        r#""funct\u0069on""#,
    ];
    const VALUES: [&str; 16] = [
        r#""a text""#,
        r#""a \"text\" \\ \/\b\f\n\r\t \u00e9\ud83c\udf89\ud800 é日🎉""#,
        r#""""#,
        r#""},{\"time\":\"x\",\"type\":\"function\",\"record\":""#,
        "null",
        "true",
        "false",
        "-0.5e+10",
        "0",
        "12345678901234567890E-5",
        "[]",
        "{}",
        r#"{"time":"x","type":"y","record":{"requestId":"r"}}"#,
        "{ \"a\" :\n[1,\r\n2, [[{}]]] ,\"\\u0062\":\"}\" }",
        r#"{"requestId":"r","level":"ERROR","message":"m","n":[1,2.5,-3e7]}"#,
        r#"{"a":[{"b":[{"c":[]}]}],"d":{"e":{"f":null}}}"#,
    ];
    const OTHERS: [&str; 9] =
        ["new", "é", "requestId", "tags", "region", "time", "type", "record", ""];
    let any = |rng: &mut Rng| (*rng.choice(VALUES.iter()).unwrap()).to_owned();
    let time = r#""2026-11-23T09:15:45.012Z""#.to_owned();
    let mut keys = vec![
        ("time", if rng.u8(0..8) == 0 { any(rng) } else { time }),
        ("type", (*rng.choice(TYPES.iter()).unwrap()).to_owned()),
        ("record", any(rng)),
    ];
    if rng.u8(0..8) == 0 {
        keys.remove(rng.usize(0..2) * 2);
    }
    if rng.bool() {
        let count = if rng.u8(0..8) == 0 { rng.usize(60..66) } else { rng.usize(1..4) };
        keys.extend((0..count).map(|_| (*rng.choice(OTHERS.iter()).unwrap(), any(rng))));
    }
    rng.shuffle(&mut keys);
    let has_blanks = rng.bool();
    let blank = |rng: &mut Rng| if has_blanks { blank(rng) } else { "" };
    let mut pairs = Vec::new();
    for (name, value) in keys {
        let key = spelled(rng, name);
        let [a, b, c, d] = [(); 4].map(|()| blank(rng));
        pairs.push(format!("{a}{key}{b}:{c}{value}{d}"));
    }
    format!("{{{}}}", pairs.join(","))
}

#[test]
fn the_order_and_spelling_of_keys_changes_nothing() {
    rounds(10_000, |rng| {
        let all: Vec<String> = (0..rng.usize(1..6)).map(|_| event(rng)).collect();
        let body = format!("[{}]", all.join(","));
        let pairs = all.iter().map(|event| serde_json::from_str::<Pairs<'_>>(event).unwrap());
        let texts: Vec<Option<String>> = pairs.map(|Pairs(pairs)| written(&pairs)).collect();
        let expected: Vec<String> = texts.iter().flatten().cloned().collect();
        let is_whole = expected.len() == all.len();
        let overlapping = rng.bool();
        let intake = || Intake::new(ALL, overlapping);
        if is_whole {
            let usual = format!("[{}}}]", expected.join("},"));
            assert_eq!(read(intake(), &body), read(intake(), &usual), "{body}");
            check(&Given::by(&mut intake(), body.as_bytes()), &expected, body.as_bytes());
            let window = rng.usize(1..body.len() + 1);
            let given = in_windows(&mut intake(), body.as_bytes(), window, |_| true);
            check(&given, &expected, body.as_bytes());
        }
        // The same behind something that is no event, or where one of them is none.
        let damaged = format!("[{{}},{}]", all.join(","));
        let mut given = Given::by(&mut intake(), damaged.as_bytes());
        given.lines.retain(|line| !line.contains(r#""type":"unparsed""#));
        check(&given, &expected, damaged.as_bytes());
    });
}

#[test]
fn what_serde_takes_is_taken_alike() {
    let mut taken = 0;
    rounds(20_000, |rng| {
        let all: Vec<String> = if rng.bool() {
            events(rng)
        } else {
            (0..rng.usize(1..4)).map(|_| event(rng)).collect()
        };
        let mut body = format!("[{}]", all.join(",")).into_bytes();
        mutate(rng, &mut body);
        if let Some(expected) = by_serde(&body) {
            let given = Given::by(&mut Intake::new(ALL, false), &body);
            check(&given, &expected, &body);
            assert_eq!(given.unparsed, 0, "{}", String::from_utf8_lossy(&body));
            taken += 1;
        }
    });
    println!("serde takes {taken} of them");
}
