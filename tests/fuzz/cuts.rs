//! Records that Lambda cut, held to what was written: the oracle makes the record, cuts it as
//! Lambda does, and knows what must come out.
//!
//! Records are short, so the length from which a piece counts as Lambda's is short, too. POSTs may
//! be lost: of what is left of a record then, every piece must be found in an event, and no whole
//! event may be missing or changed.

use fastrand::Rng;
use kinesis_telemetry_extension::lambda::intake::Intake;

use crate::windows::{Given, in_windows};
use crate::{ALL, lines, marker, rounds};

/// Each piece but the last has at least so many bytes of the record.
const MIN_PIECE: usize = 48;

/// One event as it is posted: whole, or a piece of a cut record.
struct Posted {
    bytes: Vec<u8>,
    kind: &'static str,
    /// What stands behind `"record":`
    record: Vec<u8>,
    /// Which record it is a piece of, and whether the first.
    piece_of: Option<usize>,
    is_first: bool,
}

fn header(time: &str, kind: &str) -> String {
    format!(r#"{{"time":"{time}","type":"{kind}","record":"#)
}

/// Any JSON value, of some size, with markers in it; blanks between tokens at times.
fn value(rng: &mut Rng, size: usize, kind: &str, marks: &mut usize) -> String {
    let mut mark = || {
        *marks += 1;
        marker(*marks)
    };
    if size < 20 {
        return match rng.u8(0..14) {
            0 => rng.u32(..).to_string(),
            1 => format!("-{}.{:03}e+{}", rng.u16(1..), rng.u16(0..1000), rng.u8(..)),
            2 => format!("{}E-{}", rng.u16(..), rng.u8(..)),
            3 => format!("0.{}", rng.u32(..)),
            4 => (*rng
                .choice(["true", "false", "null", "0", "-0", "[]", "{}", "\"\""].iter())
                .unwrap())
            .to_owned(),
            5 => format!(r#""{}""#, r"\\".repeat(rng.usize(0..6))),
            6 => format!(r#""{}""#, r#"\""#.repeat(rng.usize(0..6))),
            7 => r#""\u00e9\ud83c\udf89\ud800""#.to_owned(),
            8 => r#""}},{\"time\":\"2026-11-23T09:15:45.012Z\",\"type\":\"function\",\"record\":""#
                .to_owned(),
            9 => r#""]}},{[""#.to_owned(),
            _ => format!(r#""{}é日🎉\n""#, mark()),
        };
    }
    let parts = rng.usize(1..6);
    let part = size / parts;
    match rng.u8(0..7) {
        0 => format!(
            r#""{}{}""#,
            mark(),
            (*rng
                .choice(["x", "é", "日", "🎉", r"\\", r#"\""#, r"\n", r"\u00e9", "12"].iter())
                .unwrap())
            .repeat(size / 2)
        ),
        1 => format!(
            "[{}]",
            (0..size / 3)
                .map(|_| rng.u16(..).to_string())
                .collect::<Vec<_>>()
                .join(*rng.choice([",", " , "].iter()).unwrap())
        ),
        2 => {
            let objects = (0..size / 8).map(|n| {
                format!(r#"{{"a":{}}}"#, rng.u32(0..10_u32.pow(u32::try_from(n % 9).unwrap())))
            });
            format!("[{}]", objects.collect::<Vec<_>>().join(","))
        }
        3 => {
            // What looks like telemetry, from another day.
            let decoy = |rng: &mut Rng, marks: &mut usize| match rng.u8(0..3) {
                0 => format!(r#"{{"time":"2026-11-01T00:00:00.000Z","level":{}}}"#, rng.u8(..)),
                1 => header("2026-11-01T00:00:00.000Z", kind) + &rng.u8(..).to_string() + "}",
                _ => {
                    header("2026-11-01T00:00:00.000Z", "platform.report")
                        + &value(rng, 10, kind, marks)
                        + "}"
                }
            };
            format!("[{}]", (0..parts).map(|_| decoy(rng, marks)).collect::<Vec<_>>().join(","))
        }
        4 => format!(
            "[{}]",
            (0..parts).map(|_| value(rng, part, kind, marks)).collect::<Vec<_>>().join(",")
        ),
        _ => {
            let blank = *rng.choice(["", "", " ", "\t"].iter()).unwrap();
            let mut pair =
                |n: usize| format!(r#""k{n}"{blank}:{blank}{}"#, value(rng, part, kind, marks));
            format!("{{{}}}", (0..parts).map(&mut pair).collect::<Vec<_>>().join(","))
        }
    }
}

fn posted(
    time: &str,
    kind: &'static str,
    record: &[u8],
    piece_of: Option<usize>,
    is_first: bool,
) -> Posted {
    Posted {
        bytes: [header(time, kind).as_bytes(), record, b"}"].concat(),
        kind,
        record: record.to_vec(),
        piece_of,
        is_first,
    }
}

/// A few events, some of them cut.
fn events(rng: &mut Rng) -> (Vec<Posted>, Vec<String>) {
    let (mut all, mut cut, mut marks) = (Vec::new(), Vec::new(), 0);
    for n in 0..rng.usize(1..7) {
        let time = format!("2026-11-23T09:15:45.{:03}Z", n + rng.usize(0..3));
        let kind =
            *rng.choice(["function", "function", "extension", "platform.report"].iter()).unwrap();
        let size = rng.usize(0..300);
        let record = value(rng, size, kind, &mut marks);
        let is_cut = kind != "platform.report"
            && record.len() > MIN_PIECE
            && !record.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        if !is_cut || rng.u8(0..3) == 0 {
            all.push(posted(&time, kind, record.as_bytes(), None, false));
            continue;
        }
        let mut rest = record.as_bytes();
        while rest.len() > MIN_PIECE && (rest.len() == record.len() || rng.u8(0..4) > 0) {
            let (piece, behind) = rest.split_at(rng.usize(MIN_PIECE..rest.len()));
            all.push(posted(&time, kind, piece, Some(cut.len()), rest.len() == record.len()));
            rest = behind;
        }
        all.push(posted(&time, kind, rest, Some(cut.len()), false));
        cut.push(header(&time, kind) + &record);
    }
    (all, cut)
}

/// Where the JSON allows two readings and nothing tells which: a lost continuation, and a whole log
/// that continues the piece by chance.
fn is_ambiguous(pieces: &[&Posted]) -> bool {
    let whole =
        |bytes: &[u8]| serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok();
    (0..pieces.len()).any(|first| {
        let mut joined = pieces[first].record.clone();
        pieces[first].piece_of.is_some()
            && pieces[first + 1..].iter().take_while(|next| next.kind == pieces[first].kind).any(
                |next| {
                    joined.extend_from_slice(&next.record);
                    next.piece_of != pieces[first].piece_of
                        && whole(String::from_utf8_lossy(&joined).as_bytes())
                },
            )
    })
}

#[test]
fn cut_records_come_out_as_they_were_written() {
    let (mut ambiguous, mut with_losses, mut bodies, mut joined) = (0_u64, 0_u64, 0_u64, 0_u64);
    rounds(3000, |rng| {
        let (all, cut) = events(rng);
        // POSTs end anywhere between two events.
        let posts = if rng.bool() { vec![all] } else { split(rng, all) };
        let lossy = rng.u8(0..4) == 0;
        let (mut kept, mut lost) = (Vec::new(), vec![false; cut.len()]);
        for post in posts {
            if lossy && rng.bool() {
                post.iter()
                    .filter_map(|posted| posted.piece_of)
                    .for_each(|record| lost[record] = true);
            } else {
                kept.push(post);
            }
        }
        let arrived: Vec<&Posted> = kept.iter().flatten().collect();
        if is_ambiguous(&arrived) {
            ambiguous += 1;
            return;
        }
        with_losses += u64::from(lost.contains(&true));
        let mut intake = Intake::new(ALL, true).with_min_cut_bytes(MIN_PIECE);
        let mut found = Vec::new();
        let mut unparsed = 0;
        for post in &kept {
            let body = [
                b"[",
                post.iter()
                    .map(|posted| posted.bytes.as_slice())
                    .collect::<Vec<_>>()
                    .join(&b","[..])
                    .as_slice(),
                b"]",
            ]
            .concat();
            let given = if rng.bool() {
                Given::by(&mut intake, &body)
            } else {
                let window = rng.usize(1..2 * body.len());
                in_windows(&mut intake, &body, window, |_| true)
            };
            bodies += 1;
            unparsed += given.unparsed;
            found.extend(given.lines);
        }
        let parsed = intake.finish(0);
        unparsed += parsed.unparsed;
        found.extend(lines(&parsed.batch));
        assert_eq!(intake.held_bytes(), 0);

        let story = || {
            format!(
                "sent {:#?}\nfound {found:#?}",
                arrived.iter().map(|p| String::from_utf8_lossy(&p.bytes)).collect::<Vec<_>>()
            )
        };
        let mut rest = found.iter();
        let mut done = vec![false; cut.len()];
        for posted in &arrived {
            let expected = match posted.piece_of {
                None => {
                    String::from_utf8_lossy(&posted.bytes[..posted.bytes.len() - 1]).into_owned()
                }
                Some(record) if !lost[record] && !done[record] => {
                    done[record] = true;
                    joined += 1;
                    cut[record].clone()
                }
                Some(_) => continue,
            };
            assert!(
                rest.any(|line| line
                    .strip_prefix(&expected)
                    .is_some_and(|added| added.starts_with(",\"eventId\""))),
                "no {expected}\n{}",
                story()
            );
        }
        if lost.contains(&true) {
            let found = found.concat();
            for posted in
                arrived.iter().filter(|posted| posted.piece_of.is_some_and(|record| lost[record]))
            {
                // Without the characters that were cut in two.
                let piece = String::from_utf8_lossy(&posted.record);
                let piece = piece.trim_matches('\u{fffd}');
                let quoted = serde_json::to_string(piece).unwrap();
                let is_found =
                    |part: &str| found.contains(part) || found.contains(part.trim_matches('"'));
                // The beginning of a record stays in one piece; what lost its beginning may look
                // like anything, events included.
                assert!(
                    !posted.is_first || is_found(piece) || is_found(&quoted),
                    "no {piece}\n{}",
                    story()
                );
                for at in piece.match_indices("marker").map(|(at, _)| at) {
                    assert!(piece.get(at..at + 13).is_none_or(is_found), "no {piece}\n{}", story());
                }
            }
        } else {
            assert_eq!(
                (found.len(), unparsed),
                (arrived.iter().filter(|posted| posted.piece_of.is_none()).count() + cut.len(), 0),
                "{}",
                story()
            );
        }
    });
    println!(
        "{bodies} bodies, {joined} records put together, {with_losses} rounds with losses, \
         {ambiguous} left out for two readings"
    );
}

fn split(rng: &mut Rng, all: Vec<Posted>) -> Vec<Vec<Posted>> {
    let mut posts = vec![Vec::new()];
    for posted in all {
        if rng.bool() {
            posts.push(Vec::new());
        }
        if let Some(last) = posts.last_mut() {
            last.push(posted);
        }
    }
    posts.retain(|post| !post.is_empty());
    posts
}
