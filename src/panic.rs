//! A panic must not take the function down. Runs on whichever thread panics.
//!
//! The release profile aborts on panic, which saves the unwinding tables; but the hook runs before
//! that, and this one does not come back: it says one line and parks the thread for good. The
//! process lives, `main` keeps calling `/next`, and whoever would have waited for the parked thread
//! sees [`happened`] and stops waiting. A panic of the main thread itself runs the idle loop from
//! inside the hook.
//!
//! Threads without a name are the libraries' own: their panics are nobody's loss.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static ANYWHERE: AtomicBool = AtomicBool::new(false);
static IN_DISPATCHER: AtomicBool = AtomicBool::new(false);

/// The dispatcher thread's name: by it its panic is known.
pub const DISPATCHER: &str = "dispatcher";

/// Whether any thread has panicked. From then on no invocation is held.
#[must_use]
pub fn happened() -> bool {
    ANYWHERE.load(Ordering::Acquire)
}

/// Whether the dispatcher has panicked: nobody will answer.
#[must_use]
pub fn in_dispatcher() -> bool {
    IN_DISPATCHER.load(Ordering::Acquire)
}

type Wake = Box<dyn Fn() + Send + Sync>;
static WAKE: OnceLock<Wake> = OnceLock::new();

/// What wakes `main` when a thread has panicked. Runs on that thread.
pub fn on_panic(wake: impl Fn() + Send + Sync + 'static) {
    let _ = WAKE.set(Box::new(wake));
}

/// Installs the hook. `idle` is what the main thread does after a panic of its own: call `/next`
/// until SHUTDOWN, then exit; it never returns.
pub fn install_hook(idle: impl Fn() + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let Some(name) = thread.name() else {
            park();
        };
        if name == DISPATCHER {
            IN_DISPATCHER.store(true, Ordering::Release);
        }
        ANYWHERE.store(true, Ordering::Release);
        let place = info
            .location()
            .map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        // The message may quote telemetry, so only the place is reported.
        crate::log::error!(
            "panic",
            "a bug: the {name} thread panicked{place}; the function goes on without telemetry"
        );
        if let Some(wake) = WAKE.get() {
            wake();
        }
        if name == "main" {
            idle();
        }
        park();
    }));
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// Panics if the variable `PANIC_SWITCH` names this place; compiled for tests only.
#[cfg(feature = "panic-switch")]
#[allow(clippy::panic, reason = "that is what it is for")]
pub fn inject(place: &str) {
    if std::env::var("PANIC_SWITCH").is_ok_and(|wanted| wanted == place) {
        panic!("as asked for");
    }
}

/// Nothing, outside tests.
#[cfg(not(feature = "panic-switch"))]
#[inline]
pub fn inject(_place: &str) {}
