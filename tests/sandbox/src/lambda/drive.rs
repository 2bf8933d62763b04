//! The life of a sandbox, step by step: init, invocations, resets, the end. Runs on the caller's thread.

use std::sync::MutexGuard;
use std::time::{Duration, Instant, SystemTime};

use super::events::{self, Call, Ending, quoted};
use super::invocation::{Outcome, Record, Step};
use super::process::{Process, Stats};
use super::registry::Registry;
use super::{
    Exit, Expected, Failure, InitReport, Invocation, InvokeReport, Lambda, LambdaError,
    ShutdownReport,
};
use crate::clock::iso_millis;
use crate::wait::lock;

/// How long a process that has reported a fatal error may take to exit by itself.
const GRACE: Duration = Duration::from_millis(500);

/// Between `runtimeDone` and the report of an invocation that ended in a reset.
const RESET_REPORT: Duration = Duration::from_millis(20);

/// What the caller's thread knows between two calls.
pub(super) struct Driver {
    pub(super) process: Option<Process>,
    pub(super) phase: &'static str,
    pub(super) ended: bool,
    /// Waits to be told in the report of the first invocation.
    init: Option<Duration>,
    stats: Stats,
}

impl Driver {
    pub(super) fn new() -> Self {
        Self { process: None, phase: "init", ended: false, init: None, stats: Stats::default() }
    }

    fn measure(&mut self) -> Stats {
        if let Some(process) = &self.process {
            self.stats = process.stats().or_earlier(self.stats);
        }
        self.stats
    }
}

/// An event that is generated so long after SHUTDOWN.
pub(super) struct Late {
    after: Duration,
    kind: &'static str,
    record: String,
    own: Expected,
}

/// How a stretch of the function's work ended.
enum Worked {
    Done,
    Deadline,
    Exited(Exit),
}

impl Lambda {
    fn driver(&self) -> MutexGuard<'_, Driver> {
        lock(&self.driver)
    }

    fn error(&self, kind: Failure) -> LambdaError {
        let mut output: Vec<String> =
            self.output().into_iter().rev().take(20).map(|line| line.text).collect();
        output.reverse();
        LambdaError { kind, output }
    }

    /// Starts the extension's process and waits until it, and the runtime, are ready.
    ///
    /// # Errors
    /// When Lambda would fail the function: the extension exits, reports an error, or takes too long. The process is
    /// gone then, and the next invocation starts another.
    pub fn init(&self) -> Result<InitReport, LambdaError> {
        let _turn = lock(&self.turn);
        self.init_in_turn()
    }

    pub(super) fn init_in_turn(&self) -> Result<InitReport, LambdaError> {
        if self.driver().ended {
            return Err(self.error(Failure::Ended));
        }
        let result = self.try_init();
        self.driver().phase = "invoke";
        if result.is_err() {
            self.bury();
        }
        result
    }

    fn try_init(&self) -> Result<InitReport, LambdaError> {
        let setup = &self.shared.setup;
        let phase = self.driver().phase;
        let identity = &setup.identity;
        self.bury();
        self.shared.change(|world| world.begin(Registry::new(&setup.name, identity.managed)));
        let generation = self.shared.look().generation;
        self.shared.emit("platform.initStart", identity.init_start(phase), Expected::Absent);
        let begun = Instant::now();
        let until = begun + self.init_limit(phase);
        let process =
            Process::start(&self.shared, self.directory.path(), &self.extra_environment());
        let process = process.map_err(|error| self.error(Failure::Launch(error.to_string())))?;
        {
            let mut driver = self.driver();
            driver.stats = Stats::default();
            driver.process = Some(process);
        }
        // The runtime is not even started before every extension has registered.
        self.await_init(until, phase, |world| world.registry.external().is_some())?;
        self.shared.wait(Some((Instant::now() + setup.init_work).min(until)), |world| {
            world.exit.map(|_| ())
        });
        let lines = setup.init_lines.iter().map(|line| Record::Text(line.clone()));
        lines.for_each(|line| self.print("function", line, None));
        if identity.managed {
            self.emit_init_done(phase, &Ending::SUCCESS);
        }
        self.await_init(until, phase, |world| world.registry.ready())?;
        self.shared.change(|world| {
            world.window_open = false;
            world.registry.close();
        });
        self.finish_init(phase, begun.elapsed());
        let stats = self.driver().measure();
        let world = self.shared.look();
        let calls: Vec<_> =
            world.calls.iter().filter(|call| call.generation == generation).cloned().collect();
        let at = |path: &str| {
            calls
                .iter()
                .find(|call| call.path.ends_with(path))
                .map_or(Duration::ZERO, |call| call.at)
        };
        let (first_next, registered) = (at("/event/next"), at("/register"));
        Ok(InitReport { first_next, registered, calls, stats, phase })
    }

    /// A suppressed init may have to be done within the function's time-out.
    fn init_limit(&self, phase: &str) -> Duration {
        let setup = &self.shared.setup;
        if phase == "invoke" && setup.leeway.suppressed_init_counts {
            setup.init_limit.min(setup.timeout)
        } else {
            setup.init_limit
        }
    }

    fn emit_init_done(&self, phase: &str, ending: &Ending) {
        let record = self.shared.setup.identity.init_runtime_done(phase, ending);
        self.shared.emit("platform.initRuntimeDone", record, Expected::Absent);
    }

    fn finish_init(&self, phase: &'static str, took: Duration) {
        let identity = &self.shared.setup.identity;
        if !identity.managed {
            self.emit_init_done(phase, &Ending::SUCCESS);
        }
        let extension = self.shared.look().registry.external().cloned();
        if let Some(extension) = extension {
            let record = events::extension(&extension.name, "Ready", &extension.events, None);
            self.shared.emit("platform.extension", record, Expected::Absent);
        }
        let report = identity.init_report(phase, &Ending::SUCCESS, took);
        self.shared.emit("platform.initReport", report, Expected::Absent);
        self.driver().init = Some(took);
        if self.shared.setup.freeze_after_init && self.shared.setup.freeze {
            self.freeze();
        }
    }

    /// Waits for a step of init.
    fn await_init(
        &self,
        until: Instant,
        phase: &str,
        reached: impl Fn(&super::world::World) -> bool,
    ) -> Result<(), LambdaError> {
        let result = self.shared.wait(Some(until), |world| match (&world.failure, world.exit) {
            (Some((kind, reason)), _) => Some(Err(Failure::Reported(kind, reason.clone(), None))),
            (None, Some(exit)) => Some(Err(Failure::Crash(exit))),
            _ => reached(world).then_some(Ok(())),
        });
        let failure = match result {
            Some(Ok(())) => return Ok(()),
            Some(Err(Failure::Reported(kind, reason, _))) => {
                Failure::Reported(kind, reason, self.await_exit(GRACE))
            }
            Some(Err(failure)) => failure,
            None => {
                let ending = Ending { status: "timeout", error_type: None };
                let identity = &self.shared.setup.identity;
                let record = identity.init_report(phase, &ending, self.init_limit(phase));
                self.shared.emit("platform.initReport", record, Expected::Absent);
                Failure::InitTimeout(
                    self.shared.look().calls.iter().map(super::ApiCall::line).collect(),
                )
            }
        };
        Err(self.error(failure))
    }

    fn await_exit(&self, limit: Duration) -> Option<Exit> {
        self.shared.wait(Some(Instant::now() + limit), |world| world.exit)
    }

    /// Kills what is left of the process.
    pub(super) fn bury(&self) {
        self.shared.change(|world| {
            world.alive = false;
            world.frozen = false;
        });
        let process = self.driver().process.take();
        if let Some(mut process) = process {
            process.reap();
        }
    }

    fn freeze(&self) {
        if !self.shared.setup.freeze {
            return;
        }
        self.shared.change(|world| world.frozen = true);
        if let Some(process) = &self.driver().process {
            process.freeze();
        }
    }

    pub(super) fn thaw(&self) {
        if let Some(process) = &self.driver().process {
            process.thaw();
        }
        self.shared.change(|world| world.frozen = false);
    }

    /// Invokes the function, after an init when there is no process.
    ///
    /// # Errors
    /// When Lambda would fail the invocation because of the extension. A handled error, a time-out or a crash of the
    /// function itself is no error here.
    pub fn invoke(&self, invocation: Invocation) -> Result<InvokeReport, LambdaError> {
        if self.shared.setup.identity.managed {
            return self.invoke_managed(invocation);
        }
        let _turn = lock(&self.turn);
        let begun = Instant::now();
        let init = if self.driver().process.is_none() { Some(self.init_in_turn()?) } else { None };
        let counts = self.shared.setup.leeway.suppressed_init_counts
            && init.as_ref().is_some_and(|init| init.phase == "invoke");
        let used = if counts { begun.elapsed() } else { Duration::ZERO };
        let exit = self.shared.look().exit;
        if let Some(exit) = exit {
            return Err(self.crashed(exit));
        }
        self.thaw();
        let report = self.invoke_in_turn(invocation, used)?;
        Ok(InvokeReport { init, ..report })
    }

    fn crashed(&self, exit: Exit) -> LambdaError {
        let failure = self.shared.look().failure.clone();
        let kind = match failure {
            Some((kind, reason)) => Failure::Reported(kind, reason, Some(exit)),
            None => Failure::Crash(exit),
        };
        let error = self.error(kind);
        self.bury();
        error
    }

    /// `used` is what an init before it has taken of its time-out.
    fn invoke_in_turn(
        &self,
        invocation: Invocation,
        used: Duration,
    ) -> Result<InvokeReport, LambdaError> {
        let setup = &self.shared.setup;
        let call = Call {
            request_id: invocation.request_id.clone(),
            tracing: invocation.tracing.clone(),
            tenant: invocation.tenant.clone(),
        };
        let own = Expected::Is(call.request_id.clone());
        let started = Instant::now();
        let limit = invocation.timeout.unwrap_or(setup.timeout).saturating_sub(used);
        let deadline = started + limit;
        let deadline_ms = setup.leeway.deadline_ms(limit);
        let start_time =
            self.shared.emit("platform.start", call.start(&setup.identity), own.clone());
        let before = self.shared.change(|world| {
            world.current = Some(call.request_id.clone());
            if world.registry.wants("INVOKE") {
                world.outbox = Some(("INVOKE", call.invoke(&setup.identity.arn, deadline_ms)));
            }
            world.nexts.len()
        });
        let outcome = match self.work(invocation, &call, deadline) {
            (Worked::Exited(exit), Outcome::OutOfMemory) => {
                let _ = exit;
                Outcome::OutOfMemory
            }
            (Worked::Exited(exit), _) => return Err(self.crashed(exit)),
            (Worked::Deadline, _) => Outcome::Timeout,
            (Worked::Done, outcome) => outcome,
        };
        let ending = ending(outcome);
        let done = Instant::now();
        let record = call.runtime_done(&ending, &start_time, done - started);
        let mut late = Vec::new();
        match setup
            .leeway
            .runtime_done_of_crash
            .filter(|_| matches!(outcome, Outcome::Crash | Outcome::OutOfMemory))
        {
            None => {
                self.shared.emit("platform.runtimeDone", record, own.clone());
            }
            Some(None) => {}
            Some(Some(after)) => {
                late.push(Late { after, kind: "platform.runtimeDone", record, own: own.clone() })
            }
        }
        self.shared.change(|world| world.current = None);
        let mut report = InvokeReport {
            request_id: call.request_id.clone(),
            started,
            done,
            next: None,
            held: Duration::ZERO,
            deadline_exceeded: false,
            in_flight_at_next: 0,
            init: None,
            reset: None,
            stats: Stats::default(),
        };
        let mut ending = ending;
        if matches!(outcome, Outcome::Success | Outcome::HandledError) {
            self.await_next(&mut report, before, deadline)?;
            if report.deadline_exceeded {
                ending = Ending { status: "timeout", error_type: None };
            }
        }
        self.conclude(&call, &ending, &start_time, outcome, report, late)
    }

    /// Waits for the extension's `next`, if it is asked to call it.
    fn await_next(
        &self,
        report: &mut InvokeReport,
        before: usize,
        deadline: Instant,
    ) -> Result<(), LambdaError> {
        if !self.shared.look().registry.wants("INVOKE") {
            return Ok(());
        }
        let found = self.shared.wait(Some(deadline), |world| match world.exit {
            Some(exit) => Some(Err(exit)),
            None => {
                world.nexts.get(before).filter(|_| world.outbox.is_none()).map(|next| Ok(*next))
            }
        });
        match found {
            Some(Ok(next)) => {
                report.next = Some(next.at);
                report.held = next.at.saturating_duration_since(report.done);
                report.in_flight_at_next = next.in_flight;
            }
            Some(Err(exit)) => return Err(self.crashed(exit)),
            None => {
                report.deadline_exceeded = true;
                report.held = report.done.elapsed();
            }
        }
        Ok(())
    }

    /// The report, and the freeze or the reset.
    fn conclude(
        &self,
        call: &Call,
        ending: &Ending,
        start_time: &str,
        outcome: Outcome,
        mut report: InvokeReport,
        mut late: Vec<Late>,
    ) -> Result<InvokeReport, LambdaError> {
        let own = Expected::Is(call.request_id.clone());
        let identity = &self.shared.setup.identity;
        let took = report.started.elapsed();
        let init = self.driver().init.take();
        report.stats = self.driver().measure();
        let overhead = report.held;
        let record = call.report(identity, ending, start_time, took, overhead, init);
        let reason = match outcome {
            Outcome::Success | Outcome::HandledError if !report.deadline_exceeded => {
                self.shared.emit("platform.report", record, own);
                self.freeze();
                return Ok(report);
            }
            Outcome::OutOfMemory if !self.shared.setup.leeway.oom_of_runtime => {
                self.shared.emit("platform.report", record, own);
                self.bury();
                return Ok(report);
            }
            Outcome::Crash | Outcome::OutOfMemory => "failure",
            _ => "timeout",
        };
        late.insert(0, Late { after: RESET_REPORT, kind: "platform.report", record, own });
        report.reset = Some(self.end_process(reason, late));
        Ok(report)
    }

    /// SHUTDOWN, the wait for the exit, SIGKILL at the deadline. Some events are generated in the midst of it.
    pub(super) fn end_process(&self, reason: &str, late: Vec<Late>) -> ShutdownReport {
        let setup = &self.shared.setup;
        let limit = setup.shutdown_limit;
        self.thaw();
        let until = Instant::now() + limit;
        let share = setup.leeway.runtime_share_of_shutdown.min(limit);
        if !share.is_zero() {
            self.shared.change(|world| world.telemetry.flush());
            self.shared.wait(Some(Instant::now() + share), |world| world.exit.map(|_| ()));
        }
        let begun = Instant::now();
        let event = events::shutdown(reason, setup.leeway.deadline_ms(until - begun));
        self.driver().measure();
        self.shared.change(|world| {
            world.telemetry.flush();
            if world.registry.wants("SHUTDOWN") {
                world.outbox = Some(("SHUTDOWN", event));
            }
        });
        for event in late {
            self.shared
                .wait(Some((begun + event.after).min(until)), |world| world.exit.map(|_| ()));
            self.shared.emit(event.kind, event.record, event.own);
        }
        let mut exit = None;
        while exit.is_none() && Instant::now() < until {
            self.driver().measure();
            exit = self.await_exit(
                Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())),
            );
        }
        let deadline_met = exit.is_some();
        if exit.is_none() {
            if let Some(process) = &self.driver().process {
                process.kill();
            }
            exit = self.await_exit(Duration::from_secs(5));
        }
        let exit = exit.unwrap_or(Exit { at: Instant::now(), code: None, signal: None });
        let stats = self.driver().measure();
        self.bury();
        ShutdownReport { exit, took: exit.at.saturating_duration_since(begun), deadline_met, stats }
    }

    /// The function's work, to its end or its deadline.
    fn work(&self, invocation: Invocation, call: &Call, deadline: Instant) -> (Worked, Outcome) {
        let outcome = invocation.outcome;
        for step in invocation.steps {
            let worked = match step {
                Step::Event(kind, record) => {
                    let worked = self.sleep(invocation.pace, deadline);
                    self.print(&kind, record, Some(&call.request_id));
                    worked
                }
                Step::Pause(duration) => self.sleep(duration, deadline),
                Step::Run(action) => {
                    action(self);
                    self.sleep(Duration::ZERO, deadline)
                }
            };
            if !matches!(worked, Worked::Done) {
                return (worked, outcome);
            }
        }
        let last = match outcome {
            Outcome::Timeout => Duration::MAX,
            _ => Duration::from_millis(1),
        };
        if outcome == Outcome::HandledError {
            let time = iso_millis(SystemTime::now());
            let error = r#"{"errorType":"Error","errorMessage":"order not found","stack":["Error: order not found"]}"#;
            let line = format!("{time}\t{}\tERROR\tInvoke Error \t{error}\n", call.request_id);
            self.print("function", Record::Text(line), Some(&call.request_id));
        }
        if outcome == Outcome::OutOfMemory
            && !self.shared.setup.leeway.oom_of_runtime
            && let Some(process) = &self.driver().process
        {
            process.kill();
        }
        (self.sleep(last, deadline), outcome)
    }

    fn sleep(&self, duration: Duration, deadline: Instant) -> Worked {
        let now = Instant::now();
        let end = now.checked_add(duration).map_or(deadline, |end| end.min(deadline));
        match self.shared.wait(Some(end), |world| world.exit) {
            Some(exit) => Worked::Exited(exit),
            None if Instant::now() >= deadline => Worked::Deadline,
            None => Worked::Done,
        }
    }

    /// Generates a log event; `running` is the invocation in progress.
    pub(super) fn print(&self, kind: &str, record: Record, running: Option<&str>) {
        let setup = &self.shared.setup;
        let record = match record {
            Record::Raw(bytes) => bytes,
            Record::Text(line) if setup.json_logs => {
                let time = iso_millis(SystemTime::now());
                format!(r#"{{"timestamp":"{time}","level":"INFO","message":{}}}"#, quoted(&line))
                    .into_bytes()
            }
            Record::Text(line) => quoted(&line).into_bytes(),
        };
        let known = if setup.identity.managed { None } else { running };
        let expected = expected(kind, &record, known);
        self.shared.emit(kind, record, expected);
    }

    /// Managed Instances: nothing is waited for, and invocations overlap.
    fn invoke_managed(&self, invocation: Invocation) -> Result<InvokeReport, LambdaError> {
        let init = {
            let _turn = lock(&self.turn);
            let absent = self.driver().process.is_none();
            if absent { Some(self.init_in_turn()?) } else { None }
        };
        let setup = &self.shared.setup;
        let (request_id, tracing, tenant) =
            (invocation.request_id.clone(), invocation.tracing.clone(), invocation.tenant.clone());
        let call = Call { request_id: request_id.clone(), tracing, tenant };
        let own = Expected::Is(request_id.clone());
        let started = Instant::now();
        let deadline = started + invocation.timeout.unwrap_or(setup.timeout);
        let time = self.shared.emit("platform.start", call.start(&setup.identity), own.clone());
        let ending = match self.work(invocation, &call, deadline) {
            (Worked::Exited(exit), _) => return Err(self.crashed(exit)),
            (Worked::Deadline, _) => Ending { status: "timeout", error_type: None },
            (Worked::Done, outcome) => ending(outcome),
        };
        let done = Instant::now();
        let record =
            call.report(&setup.identity, &ending, &time, done - started, Duration::ZERO, None);
        self.shared.emit("platform.report", record, own);
        Ok(InvokeReport {
            request_id,
            started,
            done,
            next: None,
            held: Duration::ZERO,
            deadline_exceeded: false,
            in_flight_at_next: 0,
            init,
            reset: None,
            stats: self.driver().measure(),
        })
    }
}

fn ending(outcome: Outcome) -> Ending {
    let error = |kind: &str| Ending { status: "error", error_type: Some(kind.to_owned()) };
    match outcome {
        Outcome::Success | Outcome::HandledError => Ending::SUCCESS,
        Outcome::Timeout => Ending { status: "timeout", error_type: None },
        Outcome::Crash => error("Runtime.ExitError"),
        Outcome::OutOfMemory => error("Runtime.OutOfMemory"),
    }
}

/// The id that an event must be shipped with: its record's own, else that of the invocation in progress. A log's own counts only where none is
/// in progress (they overlap): no log of the tests names an earlier invocation.
pub(super) fn expected(kind: &str, record: &[u8], running: Option<&str>) -> Expected {
    let own = serde_json::from_slice::<serde_json::Value>(record).ok();
    let is_log = matches!(kind, "function" | "extension");
    if let Some(id) = own
        .as_ref()
        .and_then(|record| record.get("requestId"))
        .filter(|_| !is_log || running.is_none())
    {
        return id.as_str().map_or(Expected::Any, |id| Expected::Is(id.to_owned()));
    }
    match running {
        Some(id) if is_log => Expected::Is(id.to_owned()),
        _ if is_log => Expected::Absent,
        _ => Expected::Any,
    }
}
