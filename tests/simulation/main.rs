//! The core of the dispatcher under a virtual clock. One seed decides a life of a sandbox: what
//! Lambda does, how Kinesis and the disk fail, and who runs first. After every step the invariants
//! of [`checks`] hold.
//!
//! `scripts/simulate` runs this with other numbers, and replays one seed with a timeline.

// A test's own fault is to end it, with a place.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "test code: a broken assumption should stop the test where it happens"
)]

mod checks;
mod desk;
mod ending;
mod failures;
mod keep;
mod kinesis;
mod plan;
mod requests;
mod room;
mod scenarios;
mod steps;
mod threads;
mod waiting;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use plan::Plan;
use world::{Life, World};

/// Lives where nobody says how many: few, as without optimisation each takes long. `scripts/test`
/// asks for 20,000.
const LIVES: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn live(seed: u64, timeline: bool) -> Life {
    World::new(&Plan::random(seed), timeline).live()
}

/// What is wrong with that seed, if anything.
fn fault(seed: u64) -> Result<Life, String> {
    let replay = format!("replay: scripts/simulate --seed {seed}");
    match catch_unwind(AssertUnwindSafe(|| live(seed, false))) {
        Ok(Life { violation: Some(violation), .. }) => {
            Err(format!("seed {seed}: {}: {}; {replay}", violation.invariant, violation.detail))
        }
        Ok(life) => Ok(life),
        Err(_) => Err(format!("seed {seed}: a panic; {replay}")),
    }
}

#[test]
fn random_lives() {
    if let Some(seed) = number("SIMULATION_SEED") {
        let plan = Plan::random(seed);
        println!("{:#?}", plan.setup);
        println!(
            "kinesis {:?}, disk {:?}, poison {:?}, stale {}, damage {}",
            plan.kinesis, plan.disk, plan.poison, plan.stale, plan.damage
        );
        let life = live(seed, true);
        life.timeline.iter().for_each(|line| println!("{line}"));
        println!("{} steps, {} requests, {} events", life.steps, life.sends, life.events.len());
        assert!(life.violation.is_none(), "see above");
        return;
    }
    let from = number("SIMULATION_FROM").unwrap_or(1);
    let lives = number("SIMULATION_SEEDS").unwrap_or(LIVES);
    let most = number("SIMULATION_FAULTS").unwrap_or(1);
    let (next, steps, sends, events) =
        (AtomicU64::new(from), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let faults = Mutex::new(Vec::new());
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + lives || faults.lock().unwrap().len() as u64 >= most {
                        return;
                    }
                    match fault(seed) {
                        Ok(life) => {
                            steps.fetch_add(life.steps, Ordering::Relaxed);
                            sends.fetch_add(life.sends, Ordering::Relaxed);
                            events.fetch_add(life.events.len() as u64, Ordering::Relaxed);
                        }
                        Err(fault) => {
                            // At once: a long run may be ended before it is over.
                            println!("{fault}");
                            faults.lock().unwrap().push(fault);
                        }
                    }
                }
            });
        }
    });
    let lived = next.load(Ordering::Relaxed).min(from + lives) - from;
    let time = began.elapsed().as_secs_f64();
    println!(
        "{lived} lives, {} steps, {} requests, {} events in {time:.1} s: {:.0} lives a second",
        steps.load(Ordering::Relaxed),
        sends.load(Ordering::Relaxed),
        events.load(Ordering::Relaxed),
        lived as f64 / time
    );
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} lives went wrong; see above", faults.len());
}

#[test]
fn a_seed_gives_the_same_steps_again() {
    for seed in 1..200 {
        let (first, second) = (live(seed, false), live(seed, true));
        assert_eq!(
            (first.steps, first.digest, first.sends),
            (second.steps, second.digest, second.sends),
            "seed {seed}"
        );
    }
}
