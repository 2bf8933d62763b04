//! A Kinesis that takes everything at once, and remembers of each event that it came, not the event.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use memchr::memmem::{self, Finder};
use serde_json::Value;

use crate::Result;
use crate::wire::Connection;

/// How the record of a log begins; nine digits follow, which no other log has.
pub(crate) const MARK: &str = "soak ";
const DIGITS: usize = 9;

/// What arrived.
#[derive(Default)]
pub(crate) struct Arrived {
    /// A bit for each log.
    pub(crate) logs: Vec<u64>,
    pub(crate) repeated: u64,
    pub(crate) by_type: HashMap<Vec<u8>, u64>,
    /// The record of the last ledger.
    pub(crate) ledger: Value,
    pub(crate) requests: u64,
    /// The first thing that could not be read.
    pub(crate) problem: Option<String>,
}

pub(crate) struct Kinesis {
    pub(crate) address: SocketAddr,
    arrived: Arc<Mutex<Arrived>>,
}

impl Kinesis {
    /// Its threads end with the connections that they serve; the one that accepts ends with the process.
    pub(crate) fn start() -> io::Result<Kinesis> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let kinesis = Kinesis { address: listener.local_addr()?, arrived: Arc::default() };
        let arrived = Arc::clone(&kinesis.arrived);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let arrived = Arc::clone(&arrived);
                std::thread::spawn(move || {
                    if let Err(error) = serve(stream, &arrived) {
                        lock(&arrived).problem.get_or_insert(error.to_string());
                    }
                });
            }
        });
        Ok(kinesis)
    }

    pub(crate) fn take(&self) -> Arrived {
        std::mem::take(&mut lock(&self.arrived))
    }
}

fn lock(arrived: &Mutex<Arrived>) -> std::sync::MutexGuard<'_, Arrived> {
    arrived.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, arrived: &Mutex<Arrived>) -> Result<()> {
    let mut connection = Connection::new(stream)?;
    let mut decoded = Vec::new();
    let mut answer = String::new();
    // A connection that is idle for long is no fault: the extension sends when it has something.
    while let Ok(Some(message)) = connection.read() {
        let mut records = 0;
        {
            let mut arrived = lock(arrived);
            arrived.requests += 1;
            for data in Data::of(connection.body(&message)) {
                decoded.clear();
                base64_simd::STANDARD
                    .decode_append(data, &mut decoded)
                    .map_err(|error| format!("base64: {error}"))?;
                decoded
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .try_for_each(|line| arrived.note(line))?;
                records += 1;
            }
        }
        answer.clear();
        answer.push_str(r#"{"FailedRecordCount":0,"Records":["#);
        for index in 0..records {
            answer.push_str(if index > 0 { "," } else { "" });
            answer.push_str(r#"{"SequenceNumber":"49590338271490256608559692538361571095921575989136588898","ShardId":"shardId-000000000000"}"#);
        }
        answer.push_str("]}");
        connection.write(
            "HTTP/1.1 200 OK",
            "Content-Type: application/x-amz-json-1.1\r\n",
            answer.as_bytes(),
        )?;
    }
    Ok(())
}

/// The values of `Data` in the body of a PutRecords request. Base64 has no quotes.
struct Data<'a> {
    rest: &'a [u8],
    key: Finder<'static>,
}

impl<'a> Data<'a> {
    fn of(body: &'a [u8]) -> Data<'a> {
        Data { rest: body, key: Finder::new(r#""Data":""#) }
    }
}

impl<'a> Iterator for Data<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let value = &self.rest[self.key.find(self.rest)? + self.key.needle().len()..];
        let end = memchr::memchr(b'"', value)?;
        self.rest = &value[end..];
        Some(&value[..end])
    }
}

impl Arrived {
    fn note(&mut self, line: &[u8]) -> Result<()> {
        let kind = value(line, br#""type":""#).ok_or("an event without a type")?;
        if kind == b"function" {
            let number = value(line, br#""record":""#)
                .and_then(|record| record.strip_prefix(MARK.as_bytes())?.get(..DIGITS));
            let number: usize = number
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
                .ok_or("a log without a number")?;
            let (word, bit) = (number / 64, 1 << (number % 64));
            if self.logs.len() <= word {
                self.logs.resize(word + 1, 0);
            }
            self.repeated += u64::from(self.logs[word] & bit != 0);
            self.logs[word] |= bit;
        } else if kind == b"kinesis-telemetry.ledger" {
            let event: Value = serde_json::from_slice(line)?;
            self.ledger = event.get("record").cloned().ok_or("a ledger without a record")?;
        }
        match self.by_type.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(self.by_type.insert(kind.to_vec(), 1)),
        }
        Ok(())
    }
}

/// What stands behind the first `key`, up to the next quote.
fn value<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let value = &line[memmem::find(line, key)? + key.len()..];
    Some(&value[..memchr::memchr(b'"', value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_and_repeats_are_seen() {
        let mut arrived = Arrived::default();
        for line in [
            r#"{"time":"t","type":"platform.start","record":{}}"#,
            r#"{"time":"t","type":"function","record":"soak 000000070 x"}"#,
            r#"{"time":"t","type":"function","record":"soak 000000070 x"}"#,
            r#"{"time":"t","type":"kinesis-telemetry.ledger","record":{"received":3}}"#,
        ] {
            arrived.note(line.as_bytes()).unwrap();
        }
        assert_eq!((arrived.repeated, arrived.by_type[&b"function"[..]]), (1, 2));
        assert_eq!(arrived.ledger["received"], 3);
        assert!(arrived.note(br#"{"type":"function","record":"other"}"#).is_err());
    }

    #[test]
    fn each_records_data_is_found() {
        let body = br#"{"StreamName":"s","Records":[{"PartitionKey":"k","Data":"QQ=="},{"PartitionKey":"k","Data":"Qg=="}]}"#;
        assert_eq!(Data::of(body).collect::<Vec<_>>(), [b"QQ==", b"Qg=="]);
    }
}
