//! `FALLBACK=log` and `METRICS=emf`: lines to stdout, on a thread of their own. Lambda reads that
//! pipe, or does not: whoever prints must not wait for it, least of all while an invocation is
//! held.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::log;
use crate::mailbox::Mailbox;

/// Bytes that may wait for the pipe. What comes beyond that is not printed; the ledger has counted
/// it.
const WAITING: usize = 2 * 1024 * 1024;

/// See the module's page. The thread is started by the first line.
#[derive(Debug, Default)]
pub struct Printer {
    lines: OnceLock<Arc<Mailbox<Vec<u8>>>>,
    waiting: Arc<AtomicUsize>,
}

impl Printer {
    /// Prints whole lines, soon.
    pub fn print(&self, lines: Vec<u8>) {
        if self.waiting.fetch_add(lines.len(), Ordering::AcqRel) > WAITING {
            self.waiting.fetch_sub(lines.len(), Ordering::AcqRel);
            return log::warn!(
                "stdout",
                "nobody reads stdout; lines that KINESIS_TELEMETRY_FALLBACK or METRICS asks for \
                 are left out"
            );
        }
        let mailbox = self.lines.get_or_init(|| {
            let mailbox: Arc<Mailbox<Vec<u8>>> = Arc::default();
            let (waiting, lines) = (Arc::clone(&self.waiting), Arc::clone(&mailbox));
            let work = move || {
                loop {
                    for lines in lines.take_all() {
                        // A closed stdout is nobody's problem.
                        let _ = std::io::stdout().write_all(&lines);
                        waiting.fetch_sub(lines.len(), Ordering::AcqRel);
                    }
                }
            };
            let _ = thread::Builder::new().name("printer".to_owned()).spawn(work);
            mailbox
        });
        mailbox.put(lines);
    }

    /// Waits until all is printed, but no longer than until then.
    pub fn finish(&self, until: Instant) {
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
impl Printer {
    /// One whose lines nobody prints, and where they wait.
    pub(super) fn unread() -> (Printer, Arc<Mailbox<Vec<u8>>>) {
        let (printer, lines) = (Printer::default(), Arc::default());
        let _ = printer.lines.set(Arc::clone(&lines));
        (printer, lines)
    }
}
