//! Measures the extension side by side with the floor and with its peers; `scripts/bench` builds them and calls this.
//!
//! Contestants take turns (A B C A B C), so that what else the machine does hits all of them; every number is a median, and
//! stands beside its ratio to the floor that was built the same way. What a scenario does is in [`scenario`], what is
//! measured and which bounds there are in [`measure`], instruction counts in [`counts`], those of `KEEP` in
//! [`keep`].

mod arguments;
mod callgrind;
mod chart;
mod contestant;
mod counts;
mod futex;
mod keep;
mod machine;
mod measure;
mod process;
mod report;
mod scenario;
mod slow;
mod timeline;

use std::process::ExitCode;

use arguments::Command;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let done = match arguments::read(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            println!("{}", arguments::HELP);
            Ok(true)
        }
        Ok(Command::Run(plan)) => run(&plan),
        Ok(Command::Counts(counting)) => counts::run(&counting),
        Ok(Command::Burn(work)) => slow::burn(work).map(|()| true),
        Ok(Command::Keep(binary, quick)) => keep::run(&binary, quick),
        Err(problem) => {
            eprintln!("bench: {problem}\n\n{}", arguments::HELP);
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &arguments::Plan) -> Result<bool> {
    let before = machine::load();
    let mut results = measure::Results::default();
    results.remarks.clone_from(&plan.remarks);
    for contestant in &plan.contestants {
        results.note_size(contestant)?;
    }
    // A scenario that fails must not lose what the others have measured for half an hour.
    let mut complete = true;
    for scenario in scenario::ALL.iter().filter(|scenario| plan.wants(scenario.name)) {
        if let Err(error) = scenario::run(scenario, plan, &mut results) {
            results.remark(&format!("FAILED, so that its rows are not whole: {error}"));
            complete = false;
        }
    }
    if let Some(valgrind) = &plan.valgrind {
        for contestant in plan.contestants.iter().filter(|contestant| contestant.is_native()) {
            counts::add(contestant, valgrind, plan.quick, &mut results)?;
        }
    }
    let report = report::Report { plan, results: &results, load: (before, machine::load()) };
    println!("{}", report.table());
    if let Some(file) = &plan.json {
        std::fs::write(file, format!("{:#}\n", report.json()))?;
    }
    // Documents show a whole run or none.
    if let Some(file) = plan.svg.as_ref().filter(|_| complete) {
        std::fs::write(file, chart::draw(&report))?;
    }
    if let Some(file) = plan.timeline.as_ref().filter(|_| complete) {
        std::fs::write(file, timeline::draw(&report)?)?;
    }
    if let Some(file) = plan.markdown.as_ref().filter(|_| complete) {
        std::fs::write(file, report.markdown())?;
    }
    Ok(complete)
}
