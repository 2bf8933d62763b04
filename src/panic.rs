//! A panic must not take the function down. Runs on whichever thread panics.
//!
//! The release profile aborts on panic, which saves the unwinding tables; but the hook runs before that, and this one does not come back:
//! it says one line and parks the thread for good. The process lives, `main` keeps calling `/next`, and whoever would have waited for the
//! parked thread sees [`happened`] and stops waiting. A panic of the main thread itself runs the idle loop from inside the hook.

use std::sync::atomic::{AtomicBool, Ordering};

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Whether any thread has panicked. From then on the extension is idle: it holds nothing.
#[must_use]
pub fn happened() -> bool {
    HAPPENED.load(Ordering::Acquire)
}

/// Installs the hook. `idle` is what the main thread does after a panic of its own: call `/next` until SHUTDOWN, then exit; it never returns.
pub fn survive(idle: impl Fn() + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |info| {
        let again = HAPPENED.swap(true, Ordering::AcqRel);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a helper").to_owned();
        let place = info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        // The message may quote telemetry, so only the place is told.
        crate::log::error!("panic", "a bug: the {name} thread panicked{place}; the function goes on without telemetry");
        if name == "main" && !again {
            idle();
        }
        loop {
            std::thread::park();
        }
    }));
}
