//! As many events as fast as possible, over one connection, for benches and for the limits of memory.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::delivery::Client;
use super::{Delivery, Lambda};
use crate::clock::iso_millis;
use crate::kinesis::FLOOD_MARK;

/// Digits of the number in each line.
const DIGITS: usize = 9;

/// What a flood was like.
#[derive(Clone, Copy, Debug)]
pub struct FloodReport {
    /// Events posted and answered 200.
    pub events: usize,
    /// Bytes of all bodies.
    pub bytes: usize,
    /// From the first byte to the last answer.
    pub took: Duration,
    /// The longest wait for an answer.
    pub slowest: Duration,
    /// POSTs that were not answered 200.
    pub refused: usize,
    /// CPU time that the extension spent meanwhile, in steps of 10 ms.
    pub cpu: Duration,
}

/// How the events of a flood look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloodShape {
    /// As Lambda sends text logs: `time`, `type`, `record`.
    #[default]
    Plain,
    /// The same keys in another order.
    OtherOrder,
    /// With two escapes in each line, as quotes and tabs are sent.
    Escapes,
    /// With an escape in each key.
    EscapedKeys,
    /// Each line begins as Node.js's runtime writes it: time, request id, level.
    NodeJs,
}

impl Lambda {
    /// Posts `batches` bodies of `events` text logs each, every event about `event_bytes` long as JSON. Each line holds a
    /// number that no other one has: [`Account::flooded`](crate::Account::flooded) counts them. They are not in
    /// [`Lambda::sent`].
    ///
    /// # Errors
    /// When there is no subscription, or a POST fails.
    pub fn flood(
        &self,
        batches: usize,
        events: usize,
        event_bytes: usize,
    ) -> io::Result<FloodReport> {
        self.flood_of(FloodShape::Plain, batches, events, event_bytes)
    }

    /// [`Lambda::flood`], with events that look otherwise.
    ///
    /// # Errors
    /// As there.
    pub fn flood_of(
        &self,
        shape: FloodShape,
        batches: usize,
        events: usize,
        event_bytes: usize,
    ) -> io::Result<FloodReport> {
        let subscription = self.subscription().ok_or_else(|| io::Error::other("not subscribed"))?;
        let mut client = Client::new(Arc::clone(&self.shared));
        let (mut body, places) = template(shape, events, event_bytes);
        let delivery = Delivery::default();
        let cpu = self.stats().cpu;
        let begun = Instant::now();
        let mut report = FloodReport {
            events: 0,
            bytes: 0,
            took: Duration::ZERO,
            slowest: Duration::ZERO,
            refused: 0,
            cpu: Duration::ZERO,
        };
        for _ in 0..batches {
            let first = self.shared.change(|world| {
                world.flooded += events;
                world.flooded - events
            });
            for (index, place) in places.iter().enumerate() {
                body[*place..*place + DIGITS]
                    .copy_from_slice(format!("{:0DIGITS$}", first + index).as_bytes());
            }
            let asked = Instant::now();
            let status =
                client.post(subscription.port, &subscription.path, &body, events, &delivery)?;
            report.slowest = report.slowest.max(asked.elapsed());
            report.bytes += body.len();
            if status == 200 { report.events += events } else { report.refused += 1 }
        }
        report.took = begun.elapsed();
        report.cpu = self.stats().cpu.saturating_sub(cpu);
        Ok(report)
    }
}

/// A body, and where in it the numbers stand.
fn template(shape: FloodShape, events: usize, event_bytes: usize) -> (Vec<u8>, Vec<usize>) {
    let time = format!(r#""time":"{}""#, iso_millis(SystemTime::now()));
    let escapes = if shape == FloodShape::Escapes { r#" said \"no\""# } else { "" };
    let (head, tail) = match shape {
        FloodShape::OtherOrder => {
            (format!(r#"{{"type":"function","record":"{FLOOD_MARK}"#), format!(r#"",{time}}}"#))
        }
        FloodShape::NodeJs => (
            format!(
                r#"{{{time},"type":"function","record":"2026-11-23T09:15:45.012Z\t6d68ca91-49c9-448d-89b8-7ca3e6dc66aa\tINFO\t{FLOOD_MARK}"#
            ),
            r#""}"#.to_owned(),
        ),
        FloodShape::EscapedKeys => (
            format!(
                r#"{{{},"\u0074ype":"function","\u0072ecord":"{FLOOD_MARK}"#,
                time.replace("\"time", r#""\u0074ime"#)
            ),
            r#""}"#.to_owned(),
        ),
        FloodShape::Plain | FloodShape::Escapes => (
            format!(r#"{{{time},"type":"function","record":"{FLOOD_MARK}"#),
            format!(r#"{escapes}"}}"#),
        ),
    };
    let fill = event_bytes.saturating_sub(head.len() + DIGITS + tail.len());
    let mut body = vec![b'['];
    let mut places = Vec::with_capacity(events);
    for index in 0..events {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(head.as_bytes());
        places.push(body.len());
        body.extend(std::iter::repeat_n(b'0', DIGITS));
        body.extend(std::iter::repeat_n(b' ', 1.min(fill)));
        body.extend((0..fill.saturating_sub(1)).map(|at| b"the quick brown fox "[at % 20]));
        body.extend_from_slice(tail.as_bytes());
    }
    body.push(b']');
    (body, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_json_of_the_wanted_size() {
        for shape in [
            FloodShape::Plain,
            FloodShape::OtherOrder,
            FloodShape::Escapes,
            FloodShape::EscapedKeys,
        ] {
            let (body, places) = template(shape, 3, 300);
            let events: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
            assert_eq!(events.len(), 3);
            assert!(["time", "type", "record"].iter().all(|key| events[2][key].is_string()));
            assert_eq!(body.len(), 2 + 2 + 3 * 300, "{shape:?}");
            assert_eq!(&body[places[2]..places[2] + DIGITS], b"000000000");
        }
    }
}
