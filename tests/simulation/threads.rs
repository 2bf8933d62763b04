//! The extension's other two threads: the dispatcher, which carries out what the core decides, and
//! the listener, which admits what Lambda posts; and the disk that both use. In the order of the
//! real shells.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use kinesis_telemetry_extension::dispatch::admission::{Circumstances, Place, place};
use kinesis_telemetry_extension::dispatch::attention::{Announced, News};
use kinesis_telemetry_extension::dispatch::backlog::{Parcel, SegmentId};
use kinesis_telemetry_extension::dispatch::charge::Charge;
use kinesis_telemetry_extension::dispatch::message::{Load, Message, Signal};
use kinesis_telemetry_extension::dispatch::preparing::Effort;
use kinesis_telemetry_extension::dispatch::spool_file::{self, Content, MAGIC, batch, new_file};
use kinesis_telemetry_extension::dispatch::spool_index::{Entry, Purpose, Slot};
use kinesis_telemetry_extension::dispatch::step::{Oldest, Outcome, Step, Unread, stored_nothing};
use kinesis_telemetry_extension::event::Batch;
use kinesis_telemetry_extension::kinesis::error::ErrorKind;
use kinesis_telemetry_extension::kinesis::record::Limits;
use kinesis_telemetry_extension::kinesis::request::Request;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;
use kinesis_telemetry_extension::kinesis::wire::Wire;

use crate::keep::Choice;
use crate::kinesis::{Verdict, interrupted};
use crate::plan::{Disk, Mode};
use crate::world::{
    Ask, Body, Busy, Closing, Fate, MS, SpoolFile, Taking, Us, Wake, World, Writing, batch_of,
    introduced_in, numbers, sandbox_id,
};

impl World {
    // --- the dispatcher --------------------------------------------------------------------------

    /// A message has come: a dispatcher that waits for one goes on.
    pub(crate) fn notify(&mut self) {
        self.process.announced.rings();
        if self.process.waits {
            let delay = self.between(5, 150);
            self.look_after(delay);
        }
    }

    pub(crate) fn look_after(&mut self, delay: Us) {
        self.process.waits = false;
        self.process.token += 1;
        let (number, token) = (self.process.number, self.process.token);
        self.after(delay, Wake::Drain(number, token));
    }

    pub(crate) fn look(&mut self) {
        self.process.waits = false;
        self.turn();
    }

    /// Looks at the disk, hands in the messages, and begins the next step.
    pub(crate) fn turn(&mut self) {
        self.process.announced = Announced::default();
        loop {
            // Between the look at the disk and the messages, others may run.
            let view = match self.process.view.take() {
                Some(view) => view,
                None => {
                    let view = self.process.index.view();
                    if self.chance(8) {
                        self.process.view = Some(view);
                        let delay = self.between(1, 300);
                        return self.look_after(delay);
                    }
                    view
                }
            };
            self.process.core.look(view);
            while let Some(message) = self.process.channel.pop_front() {
                self.hand_in(message);
            }
            let now = self.clock();
            let (aside, dropped) = (self.crowded_aside(), self.process.ledger.dropped_queue.get());
            self.process.had_room = self.process.gauge.held() <= self.process.gauge.bound();
            let aside_bytes = self.process.core.backlog().aside_bytes();
            let much = !self.process.had_room || aside_bytes > self.process.gauge.bound() / 2;
            let step = self.process.core.poll(now, view);
            if self.process.ledger.dropped_queue.get() > dropped {
                self.check_given_up(&aside, much, &step);
            }
            self.steps += 1;
            self.count_poll(&step);
            let outcome = match step {
                Step::Exit => return,
                Step::Wait(_) if self.process.index.view() != view => continue,
                Step::Wait(until) => {
                    let attention = self.process.core.attention(now);
                    self.process.announced = Announced::new(attention, until);
                    self.check_wait(until.map(|until| self.micros(until)), view);
                    self.process.waits = true;
                    self.process.token += 1;
                    if let Some(until) = until {
                        let (number, token) = (self.process.number, self.process.token);
                        let late = self.between(20, 1500);
                        let at = self.micros(until) + late;
                        self.at(at, Wake::WaitOver(number, token));
                    }
                    return;
                }
                step => match self.begin(step) {
                    Some(outcome) => outcome,
                    None => return,
                },
            };
            if !self.process.alive || self.violation.is_some() {
                return;
            }
            let now = self.clock();
            self.process.core.done(now, outcome);
        }
    }

    fn hand_in(&mut self, message: Message) {
        if let Message::Invoked { at, request_id, .. } = &message {
            self.process.invoked = Some((Arc::clone(request_id), self.micros(at.mono)));
            self.process.is_running = false;
        }
        match &message {
            Message::Telemetry { signals, .. } => {
                for signal in signals {
                    match signal {
                        Signal::Started(id) => {
                            // Of those before the last INVOKE, each is over.
                            let process = &mut self.process;
                            let announced = process.invoked.as_ref().map(|(id, _)| id);
                            if announced.is_some_and(|announced| announced != id) {
                                continue;
                            }
                            // Waited for in vain, an end that comes behind the next start is lost
                            // to who goes by Lambda's order.
                            let missed = process.missed.take_if(|missed| missed != id);
                            self.ends_lost |=
                                missed.is_some_and(|missed| !process.ended.contains(&missed));
                            process.is_running = announced.is_some() && !process.ended.contains(id);
                        }
                        Signal::Done { request_id, .. } => {
                            self.process.ended.push(Arc::clone(request_id));
                            let process = &mut self.process;
                            let announced = process.invoked.as_ref().map(|(id, _)| id);
                            process.is_running &= announced != Some(request_id);
                        }
                        _ => {}
                    }
                }
            }
            Message::Invoked { ticket: None, .. } => self.process.looks = 0,
            Message::Invoked { ticket: Some(ticket), .. } | Message::Stop { ticket, .. } => {
                self.process.looks = 0;
                if let Some(asking) =
                    self.process.asking.as_mut().filter(|asking| asking.ticket == *ticket)
                {
                    asking.handed_in = true;
                }
            }
        }
        let now = self.clock();
        self.process.core.on(now, message);
    }

    /// Begins a step. What takes no time is over at once.
    fn begin(&mut self, step: Step) -> Option<Outcome> {
        self.process.busy_since = self.now;
        let takes = match step {
            Step::Log(level, topic, line) => {
                self.say(|_| format!("core: {level:?} [{topic}] {line}"));
                if topic == "no-room" {
                    self.process.gave_up_at = Some(self.now);
                }
                return Some(Outcome::Done);
            }
            Step::Print(lines) => {
                self.print(&lines);
                return Some(Outcome::Done);
            }
            Step::Reply(ticket) => {
                self.reply(ticket);
                return Some(Outcome::Done);
            }
            Step::Remove(segment) => {
                self.say(|_| format!("core: segment {segment} is settled"));
                if self
                    .process
                    .core
                    .backlog()
                    .aside()
                    .iter()
                    .any(|parcel| parcel.segment == Some(segment))
                {
                    let detail = format!(
                        "segment {segment} is deleted, and a part of it is still in memory"
                    );
                    self.fail("a segment stays until all of it is settled", detail);
                }
                self.check_removal(segment);
                self.remove(segment);
                return Some(Outcome::Done);
            }
            Step::PutBack(segment) => {
                self.say(|_| format!("core: puts segment {segment} back"));
                self.process.index.put_back(segment);
                self.check_put_back();
                return Some(Outcome::Done);
            }
            Step::Discard(until) => {
                self.say(|_| "core: discards the spool".to_owned());
                let entries = self.process.index.drain();
                let uncounted = entries.iter().filter(|entry| entry.is_unknown()).count();
                self.check_counted(uncounted as u64, self.micros(until));
                entries.iter().for_each(|entry| self.drop_entry(entry, true));
                return Some(Outcome::Done);
            }
            Step::Prepare { effort, deadline } => {
                let left = self.micros(deadline.at()).saturating_sub(self.now);
                match self.prepare(effort, left) {
                    Some(takes) => takes,
                    None => return Some(Outcome::Prepared(false)),
                }
            }
            Step::Recover => {
                let found = self.recover();
                self.process.busy = Busy::Recover(found);
                self.between(50, 2 * MS)
            }
            Step::Read(segment) => {
                self.say(|_| format!("core: reads segment {segment}"));
                self.process.reading = self.process.index.take(segment);
                self.process.busy = Busy::Read(segment);
                self.disk_time()
            }
            Step::Count => {
                self.say(|_| "core: counts what a segment of an earlier process holds".to_owned());
                self.process.reading = self.process.index.take_uncounted();
                self.process.busy = Busy::Count;
                self.disk_time()
            }
            Step::Spool(parcel) => self.begin_spool(parcel),
            Step::CloseIntake(until) => {
                self.say(|_| "core: closes the intake".to_owned());
                let until = self.micros(until);
                match self.close(until) {
                    Some(takes) => takes,
                    None if self.process.closed => return Some(Outcome::Done),
                    None => return None,
                }
            }
            Step::Send { parcel, deadline } => {
                let left = self.micros(deadline.at()).saturating_sub(self.now);
                self.begin_send(parcel, left)
            }
            Step::SendLedger { mut request, deadline } => {
                let left = self.micros(deadline.at()).saturating_sub(self.now);
                let verdict = self.kinesis(&mut request, left, true);
                self.process.ledgers += 1;
                self.last_ledgers += 1;
                if self.process.ledgers > 5 {
                    self.fail("no storm", "more than 5 requests for the last ledger".to_owned());
                }
                self.say(|_| format!("core: sends the ledger: {}", outcome_text(&verdict)));
                let takes = verdict.takes;
                self.process.busy = Busy::Ledger { request, verdict, began: self.now };
                takes
            }
            Step::Wait(_) | Step::Exit => unreachable!("handled before"),
        };
        self.process.token += 1;
        let (number, token) = (self.process.number, self.process.token);
        self.after(takes, Wake::StepDone(number, token));
        None
    }

    /// As `Handover::close`: says how long the intake's lock is waited for; `None` where the
    /// dispatcher has it. With the lock, all that waits for a choice is handed over before this is
    /// done, however long the disk takes for that: nobody else may have the lock meanwhile.
    fn close(&mut self, until: Us) -> Option<Us> {
        if matches!(self.process.taking, Taking::Nothing) {
            self.process.busy = Busy::Close(Closing::HandsOver);
            self.process.token += 1;
            if !self.finish_choices() {
                self.process.busy = Busy::Nothing;
                self.process.closed = true;
            }
            return None;
        }
        self.process.busy = Busy::Close(Closing::WaitsForIntake { until });
        let left = until.saturating_sub(self.now);
        Some(left.min((left / 4).max(100 * MS)))
    }

    /// Closing is over, or takes too long. Says whether the dispatcher goes on.
    fn closed(&mut self, closing: Closing) -> bool {
        self.process.closed = true;
        if let Closing::WaitsForIntake { until } = closing
            && self.process.keeping.is_some()
            && until > self.now
        {
            // Whoever has the intake's lock has that of the choice as well.
            self.process.busy = Busy::Close(Closing::WaitsForChoice);
            self.process.token += 1;
            let (number, token) = (self.process.number, self.process.token);
            self.at(until.min(self.now + 100 * MS), Wake::StepDone(number, token));
            return false;
        }
        if matches!(self.process.taking, Taking::Nothing) {
            self.take_next();
        } else if closing != Closing::HandsOver {
            self.give_up_choices();
        }
        true
    }

    /// How long it takes to make a connection ready; `None`: that is not done now.
    fn prepare(&mut self, effort: Effort, left: Us) -> Option<Us> {
        self.check_prepare(left);
        let handshake = self.between(MS, 20 * MS);
        let (alive, idle) = (self.chance(2), self.chance(2));
        let takes = match self.mode() {
            _ if alive => 0,
            _ if effort == Effort::Look || (effort == Effort::WhenIdle && !idle) => return None,
            Mode::Refuses => 300,
            Mode::Hangs | Mode::ConnectTimeout => Us::MAX,
            Mode::Slow(ms) => handshake + self.between(0, ms * MS),
            _ => handshake,
        };
        let late = self.between(0, 2 * MS);
        let takes = if takes > left { left + late } else { takes };
        self.say(|_| format!("core: makes a connection ready ({effort:?}) for {} ms", takes / MS));
        self.process.prepares += 1;
        self.process.busy = Busy::Prepare;
        Some(takes)
    }

    pub(crate) fn file_of(&mut self, segment: Option<SegmentId>) -> Option<&mut SpoolFile> {
        self.files.get_mut(self.process.files.get(&segment?)?)
    }

    fn begin_send(&mut self, mut parcel: Box<Parcel>, left: Us) -> Us {
        let file = self.file_of(parcel.segment);
        self.process.marked = file.is_some_and(|file| !std::mem::replace(&mut file.doubt, true));
        let verdict = self.kinesis(&mut parcel.request, left, false);
        self.sends += 1;
        self.process.put_back = 0;
        self.check_send(&parcel, &verdict);
        self.say(|_| {
            let (tries, records, segment) = (parcel.tries, verdict.events.len(), parcel.segment);
            format!(
                "core: sends {records} records (tries {tries}, segment {segment:?}, {:?}): {}",
                verdict.events,
                outcome_text(&verdict)
            )
        });
        let takes = verdict.takes;
        self.process.busy = Busy::Send { parcel, verdict, began: self.now };
        takes
    }

    fn begin_spool(&mut self, mut parcel: Box<Parcel>) -> Us {
        // As the dispatcher does: other parts of its segment may stay in that file for long.
        let file = self.file_of(parcel.segment);
        self.process.marked = file.is_some_and(|file| !std::mem::replace(&mut file.doubt, true));
        self.note_doubt(parcel.segment, &[]);
        parcel.request.seal();
        let purpose = Purpose::apart(&parcel);
        let slot = self.process.index.begin(&new_file(&[&parcel.request]), purpose);
        let writing = self.writing(slot, &[&parcel.request]);
        for event in writing.iter().flat_map(|writing| &writing.events) {
            self.events[*event as usize].out_of_order = true;
        }
        let id = writing.as_ref().map(|writing| writing.slot.id);
        self.say(|_| format!("core: spools {} events as {id:?}", parcel.request.events()));
        self.process.busy = Busy::Spool { parcel, writing };
        self.disk_time()
    }

    /// A step is over.
    pub(crate) fn step_done(&mut self) {
        self.process.busy_for += self.now - self.process.busy_since;
        self.process.busy_since = self.now;
        let outcome = match std::mem::replace(&mut self.process.busy, Busy::Nothing) {
            Busy::Nothing => return,
            Busy::Send { parcel, verdict, began } => {
                self.settle(&verdict, began, parcel.request.events());
                if !stored_nothing(&verdict.sent) {
                    self.note_doubt(parcel.segment, &verdict.events);
                } else if self.process.marked
                    && let Some(file) = self.file_of(parcel.segment)
                {
                    // As the dispatcher does.
                    file.doubt = false;
                }
                Outcome::Sent(parcel, verdict.sent)
            }
            Busy::Ledger { request, verdict, began } => {
                self.settle(&verdict, began, 0);
                Outcome::Ledger(request, verdict.sent)
            }
            Busy::Read(segment) => self.read(segment),
            Busy::Count => {
                self.count();
                Outcome::Done
            }
            Busy::Spool { parcel, writing } => {
                let id = writing.as_ref().map(|writing| writing.slot.id);
                let written = self.commit(writing).is_some();
                self.process.write_failed |= !written && !parcel.stays;
                if !written
                    && self.process.marked
                    && let Some(file) = self.file_of(parcel.segment)
                {
                    file.doubt = false;
                }
                self.say(|_| format!("core: spooled: {written}"));
                Outcome::Spooled(parcel, id.filter(|_| written))
            }
            Busy::Close(closing) => {
                if !self.closed(closing) {
                    return;
                }
                Outcome::Done
            }
            Busy::Prepare => Outcome::Prepared(true),
            Busy::Recover(found) => Outcome::Recovered(found),
        };
        let now = self.clock();
        self.process.core.done(now, outcome);
        self.now_and_then();
        self.turn();
    }

    /// The watchdog ends the request in progress, if there is one.
    pub(crate) fn interrupt(&mut self) {
        let delay = self.between(0, 40 * MS);
        let kept = self.rng.bool();
        let verdict = match &mut self.process.busy {
            Busy::Send { verdict, .. } | Busy::Ledger { verdict, .. } => Some(verdict),
            Busy::Prepare => None,
            _ => return,
        };
        if let Some(verdict) = verdict {
            if matches!(&verdict.sent, Err((error, _)) if error.kind == ErrorKind::Interrupted) {
                // It was ended already, and comes back soon.
                return;
            }
            let ambiguous = !verdict.connecting;
            verdict.sent = interrupted(ambiguous);
            if !(ambiguous && kept) {
                verdict.stored.fill(false);
            }
        }
        self.say(|_| "main: interrupts the request".to_owned());
        self.process.token += 1;
        let (number, token) = (self.process.number, self.process.token);
        self.after(delay, Wake::StepDone(number, token));
    }

    /// What a request did on the stream.
    fn settle(&mut self, verdict: &Verdict, began: Us, _events: u64) {
        for (record, stored) in verdict.events.iter().zip(&verdict.stored) {
            for event in record.iter().filter(|_| *stored) {
                self.store(*event);
            }
        }
        self.store_introductions(verdict);
        let mut delivered = false;
        let told = self
            .process
            .asking
            .as_ref()
            .is_some_and(|asking| asking.handed_in && matches!(asking.ask, Ask::Stop));
        self.process.stop_failed |= told
            && match &verdict.sent {
                Ok(outcomes) => outcomes.iter().any(|outcome| *outcome != RecordOutcome::Taken),
                Err((error, _)) => {
                    !error.stale && !error.retry_now && error.kind != ErrorKind::Interrupted
                }
            };
        match &verdict.sent {
            Ok(outcomes) => {
                for (record, outcome) in verdict.events.iter().zip(outcomes) {
                    for event in record {
                        let fate = &mut self.events[*event as usize];
                        match outcome {
                            RecordOutcome::Taken => fate.acknowledged = true,
                            RecordOutcome::Failed { kind, .. } => {
                                fate.refused += u16::from(is_content(*kind) && record.len() == 1);
                                fate.passing |=
                                    matches!(kind, ErrorKind::Throttled | ErrorKind::Transient);
                            }
                        }
                    }
                    delivered |= *outcome == RecordOutcome::Taken;
                }
                let alone = verdict.events.iter().zip(outcomes).zip(&verdict.introduced);
                for (_, introduced) in alone.filter(|((events, outcome), _)| {
                    let RecordOutcome::Failed { kind, .. } = outcome else { return false };
                    events.is_empty() && is_content(*kind)
                }) {
                    self.refuse_introductions(introduced);
                }
            }
            Err((error, _)) if is_content(error.kind) => match verdict.events.concat()[..] {
                [] => self.refuse_introductions(&verdict.introduced.concat()),
                [event] => self.events[event as usize].refused += 1,
                _ => {}
            },
            Err((error, _)) => {
                let passing = error.kind == ErrorKind::Throttled;
                for event in verdict.events.iter().flatten() {
                    self.events[*event as usize].passing |= passing;
                }
            }
        }
        let all_taken = matches!(&verdict.sent,
            Ok(outcomes) if outcomes.iter().all(|outcome| *outcome == RecordOutcome::Taken));
        if !all_taken {
            self.process.failed_at = Some(self.now);
        }
        self.count_refusals(verdict);
        self.count_request(began, delivered);
        self.note_left_behind(verdict);
    }

    // --- the listener ----------------------------------------------------------------------------

    /// A POST reaches the port, or whoever has it now.
    pub(crate) fn post(&mut self, body: Body) {
        if !self.process.alive {
            return self.post_again(body);
        }
        // A thread for each connection: several bodies are read at once.
        let id = self.process.reading_posts.last_key_value().map_or(1, |(last, _)| last + 1);
        self.process.reading_posts.insert(id, body);
        let (number, delay) = (self.process.number, self.between(20, 600));
        self.after(delay, Wake::PostRead(number, id));
    }

    /// A body is whole: on with the intake's lock, as soon as it is free.
    pub(crate) fn post_read(&mut self, id: u64) {
        self.process.posts.extend(self.process.reading_posts.remove(&id));
        if matches!(self.process.taking, Taking::Nothing) {
            self.take_next();
        }
    }

    /// Lambda got no 200.
    fn post_again(&mut self, body: Body) {
        if body.tries < 3 {
            let delay = self.between(50 * MS, 300 * MS);
            self.after(delay, Wake::Post(Body { tries: body.tries + 1, ..body }));
        }
    }

    /// One of the threads that wait for the lock gets it.
    fn take_next(&mut self) {
        self.process.taking = Taking::Nothing;
        let closes = self.process.closed || matches!(self.process.busy, Busy::Close(_));
        while closes && !self.process.posts.is_empty() {
            self.say(|_| "listener: the intake is closed".to_owned());
            let body = self.process.posts.remove(0);
            self.post_again(body);
        }
        if !self.process.posts.is_empty() {
            // Lambda posts over a few connections: none is overtaken by many.
            let luck = self.rng.usize(0..self.process.posts.len().min(4));
            let body = self.process.posts.remove(luck);
            self.admit(body);
        }
    }

    /// The listener goes on.
    pub(crate) fn listener(&mut self) {
        match std::mem::replace(&mut self.process.taking, Taking::Nothing) {
            Taking::Nothing => {}
            Taking::Writing { writing, events, mut rest, all, signals, wakes } => {
                let Some(waited_for) = self.commit(writing.map(|writing| *writing)) else {
                    let rest: u64 = rest.iter().map(Request::events).sum();
                    self.print_events(events.len() as u64 + rest);
                    self.process.ledger.dropped_queue.add(events.len() as u64 + rest);
                    return self.spilled(all, signals, true);
                };
                let wakes = wakes | waited_for;
                match rest.pop_front() {
                    Some(request) => self.write(request, rest, all, signals, wakes),
                    None => self.spilled(all, signals, wakes),
                }
            }
            Taking::Answering(events) => {
                if self.process.closed {
                    self.say(|_| format!("listener: was closed meanwhile, no 200 for {events:?}"));
                } else {
                    events.iter().for_each(|event| self.events[*event as usize].answered = true);
                }
                if matches!(self.process.busy, Busy::Close(_)) {
                    // The intake's lock is free, or the dispatcher has it. Who else waits for it
                    // finds that the intake closes.
                    self.process.token += 1;
                    self.process.busy = Busy::Close(Closing::HandsOver);
                    if !self.finish_choices() {
                        let (number, token) = (self.process.number, self.process.token);
                        self.after(0, Wake::StepDone(number, token));
                    }
                    return;
                }
                self.take_next();
            }
        }
    }

    /// As `Admission::admit`.
    fn admit(&mut self, body: Body) {
        let first = u32::try_from(self.events.len()).unwrap();
        if body.restored {
            self.process.restores += 1;
            let id = sandbox_id(&self.plan, (self.process.number, self.process.restores));
            self.process.sandbox.restored_as(id);
        }
        let batch = batch_of(first, &body, self.process.restores);
        let all: Vec<u32> = (first..first + body.events).collect();
        let process = self.process.number;
        let sandbox = (process, self.process.restores);
        self.events.extend(all.iter().map(|_| Fate { process, sandbox, ..Fate::default() }));
        self.choose(body, batch, all);
    }

    /// `all`: the events of the POST, which are to be answered.
    pub(crate) fn admit_batch(&mut self, batch: Batch, all: Vec<u32>, signals: Vec<Signal>) {
        let own = batch_numbers(&batch);
        let (now, wall) = (self.now, self.true_wall());
        for event in &own {
            let fate = &mut self.events[*event as usize];
            (fate.received, fate.choice) = (true, Choice::Kept);
            (fate.came, fate.came_wall) = (now, wall);
        }
        self.process.ledger.received.add(own.len() as u64);
        for signal in &signals {
            if let Signal::Done { request_id, .. } = signal {
                self.heard_end(request_id);
            }
        }
        if own.is_empty() {
            self.send_signals(signals);
            return self.answer(all);
        }
        let cost = batch.cost();
        if cost > self.process.gauge.limit().saturating_sub(self.process.gauge.held()) {
            self.process.spares.clear();
        }
        let circumstances = Circumstances {
            cost,
            packed: self.process.packer.packed_bytes(&batch),
            held: self.process.gauge.held(),
            bound: self.process.gauge.limit(),
            request: self.process.packer.request_bytes(),
            sending: self.process.is_awake(),
            overflow: self.process.index.view().overflow != Oldest::Empty,
        };
        let decided = place(&circumstances);
        let charge =
            if decided == Place::Disk { None } else { self.process.gauge.try_charge(cost) };
        self.say(|_| {
            format!(
                "listener: {} events {own:?}, {cost} bytes, {signals:?}: {decided:?}",
                own.len()
            )
        });
        match charge {
            None => {
                if self.plan.setup.spool_bytes == 0 {
                    self.print_events(own.len() as u64);
                    self.process.ledger.dropped_queue.add(own.len() as u64);
                    return self.spilled(all, signals, false);
                }
                let mut requests = self.pack_all(batch, true);
                match requests.pop_front() {
                    Some(request) => self.write(request, requests, all, signals, false),
                    None => self.spilled(all, signals, false),
                }
            }
            Some(charge) if decided == Place::Packed => {
                let mut requests = self.pack_all(batch, false);
                drop(charge);
                let mut signals = Some(signals);
                while let Some(request) = requests.pop_front() {
                    let charge = self.process.gauge.charge(request.cost());
                    let with = if requests.is_empty() {
                        signals.take().unwrap_or_default()
                    } else {
                        Vec::new()
                    };
                    self.send_message(with, Load::Packed(Box::new(request)), Some(charge));
                }
                self.answer(all);
            }
            Some(charge) => {
                self.send_message(signals, Load::Events(batch), Some(charge));
                self.answer(all);
            }
        }
    }

    fn pack_all(&mut self, mut batch: Batch, for_disk: bool) -> VecDeque<Request> {
        let mut packed = VecDeque::new();
        while !batch.remaining().is_empty() {
            let mut request = if for_disk { self.for_disk() } else { Request::new(self.limits) };
            if !for_disk {
                let wall = self.clock().wall;
                self.process.packer.introduce(&mut request, &[], wall);
            }
            let oversized = self.process.packer.pack(&mut request, &mut batch);
            self.process.ledger.dropped_rejected.add(oversized);
            if !request.is_empty() {
                request.seal();
                packed.push_back(request);
            }
        }
        packed
    }

    /// As `admission.rs`.
    fn for_disk(&self) -> Request {
        Request::new(Limits { wire: Wire::Cbor, ..self.limits })
    }

    /// As `Spool::append`.
    fn write(
        &mut self,
        request: Request,
        rest: VecDeque<Request>,
        all: Vec<u32>,
        signals: Vec<Signal>,
        wakes: bool,
    ) {
        let introduces = self.process.packer.introduces();
        let appended = self.process.index.append(&batch(&[&request]), introduces);
        let writing = if appended.is_some() {
            self.writing(appended, &[&request])
        } else {
            let mut introduction = self.for_disk();
            if introduces.is_some() {
                let wall = self.clock().wall;
                self.process.packer.introduce(&mut introduction, &[], wall);
                introduction.seal();
            }
            let introduction = Some(&introduction).filter(|request| !request.is_empty());
            let requests: Vec<&Request> = introduction.into_iter().chain([&request]).collect();
            let purpose = Purpose::Overflow { introduces };
            let slot = self.process.index.begin(&new_file(&requests), purpose);
            self.writing(slot, &requests)
        };
        let events = request.data().flat_map(|lines| numbers(&lines)).collect();
        let writing = writing.map(Box::new);
        self.process.taking = Taking::Writing { writing, events, rest, all, signals, wakes };
        let (number, delay) = (self.process.number, self.disk_time());
        self.after(delay, Wake::Listener(number));
    }

    fn spilled(&mut self, all: Vec<u32>, signals: Vec<Signal>, wakes: bool) {
        self.send_signals(signals);
        if wakes {
            self.notify();
        }
        self.answer(all);
    }

    /// Without events, or behind them.
    fn send_signals(&mut self, signals: Vec<Signal>) {
        let ends = ends(&signals);
        let room = Some(signals).filter(|signals| !signals.is_empty());
        let asking = self.process.asking.as_ref();
        let is_awaited = |id: &str| {
            asking.is_some_and(
                |asking| matches!(&asking.ask, Ask::Invocation(asked) if **asked == *id),
            )
        };
        let waiting = room.and_then(|all| self.process.signal_room.take(all, is_awaited));
        if let Some((signals, charge)) = waiting {
            self.put_message(signals, Load::Nothing, Some(charge));
        }
        ends.iter().for_each(|(id, failed)| self.passed_end_on(id, *failed));
    }

    fn send_message(&mut self, signals: Vec<Signal>, load: Load, charge: Option<Charge>) {
        let ends = ends(&signals);
        self.put_message(signals, load, charge);
        ends.iter().for_each(|(id, failed)| self.passed_end_on(id, *failed));
    }

    fn put_message(&mut self, signals: Vec<Signal>, load: Load, charge: Option<Charge>) {
        let at = self.clock();
        let bytes = charge.as_ref().filter(|_| load.events() > 0).map_or(0, Charge::bytes);
        let news = News::new(&signals, bytes);
        self.process.channel.push_back(Message::Telemetry { at, signals, load, charge });
        if self.process.announced.wakes(news) {
            self.notify();
        }
    }

    /// Everything is in the channel: one more look whether the intake was closed, then the answer.
    fn answer(&mut self, events: Vec<u32>) {
        if self.process.keeping.as_ref().is_some_and(|keeping| !keeping.decided.is_empty()) {
            return self.admit_decided(events);
        }
        self.process.taking = Taking::Answering(events);
        let (number, delay) = (self.process.number, self.between(5, 100));
        self.after(delay, Wake::Listener(number));
    }

    // --- the disk --------------------------------------------------------------------------------

    /// What is to be written at a place, if there is one. What had to give way for it is gone.
    fn writing(&mut self, slot: Option<Slot>, requests: &[&Request]) -> Option<Writing> {
        let slot = slot?;
        for entry in &slot.evicted {
            self.drop_entry(entry, false);
        }
        let mut bytes = if slot.at == 0 { MAGIC.to_vec() } else { Vec::new() };
        let mut hash = slot.before.unwrap_or_else(|| spool_file::beginning(&self.stream));
        for request in requests {
            hash = spool_file::append(&mut bytes, request, &hash).expect("memory takes all");
        }
        let lines: Vec<u8> = requests.iter().flat_map(|request| request.data().flatten()).collect();
        let introduced =
            requests.iter().flat_map(|request| request.data()).flat_map(|l| introduced_in(&l));
        let introduced = introduced.collect();
        Some(Writing { slot, hash, bytes, events: numbers(&lines), introduced })
    }

    /// What was to be written is. Says whether the dispatcher may wait for it; `None`: it could not
    /// be written.
    fn commit(&mut self, writing: Option<Writing>) -> Option<bool> {
        let Writing { slot, hash, bytes, events, introduced } = writing?;
        let is_full = self.disk() == Disk::Full;
        let part = self.rng.usize(0..bytes.len());
        let (id, at) = (slot.id, usize::try_from(slot.at).unwrap());
        if at == 0 && is_full {
            self.process.index.remove(id);
            return None;
        }
        if at == 0 {
            let damage = self.plan.damage;
            let damaged = !self.healed && self.chance(damage);
            let (process, doubt) = (self.process.number, slot.purpose.is_in_doubt());
            self.process.files.insert(id, self.next_file);
            let file = SpoolFile { process, bytes, doubt, damaged, events: Vec::new(), introduced };
            self.files.insert(self.next_file, SpoolFile { events: events.clone(), ..file });
            self.next_file += 1;
        } else {
            let file = self.process.files.get(&id).and_then(|file| self.files.get_mut(file))?;
            file.bytes.truncate(at);
            if is_full {
                // Perhaps not even that can be taken away again.
                file.bytes.extend_from_slice(&bytes[..part * (part % 2)]);
                self.process.index.undo(id, events.len() as u64);
                return None;
            }
            file.bytes.extend_from_slice(&bytes);
            file.events.extend_from_slice(&events);
            file.introduced.extend(introduced);
        }
        self.process.ledger.spooled.add(events.len() as u64);
        Some(self.process.index.commit(id, hash))
    }

    /// What is in a file.
    pub(crate) fn content(&self, bytes: &[u8], length: u64) -> Option<Content> {
        spool_file::read(bytes, length, &self.stream, self.limits, Vec::with_capacity).ok()
    }

    fn remove(&mut self, id: SegmentId) {
        self.process.index.remove(id);
        if let Some(file) = self.process.files.remove(&id) {
            self.files.remove(&file);
        }
    }

    fn drop_entry(&mut self, entry: &Entry, undelivered: bool) {
        let Some(file) =
            self.process.files.remove(&entry.id).and_then(|file| self.files.remove(&file))
        else {
            return;
        };
        let events = file.events.len() as u64;
        self.excuse_introductions(&file.introduced);
        file.events.iter().for_each(|event| self.events[*event as usize].evicted = true);
        match file.damaged {
            true => self.process.unprintable += events,
            false => self.print_events(events),
        }
        self.say(|_| format!("disk: segment {} is deleted with {:?}", entry.id, file.events));
        if entry.left_behind.is_some() && !self.process.read.contains(&entry.id) {
            self.receive_again(&file.events);
        }
        let ledger = &self.process.ledger;
        if undelivered { &ledger.dropped_undelivered } else { &ledger.dropped_queue }.add(events);
    }

    fn receive_again(&mut self, events: &[u32]) {
        let number = self.process.number;
        self.process.ledger.received.add(events.len() as u64);
        self.process.ledger.adopted.add(events.len() as u64);
        for event in events {
            let fate = &mut self.events[*event as usize];
            (fate.process, fate.received, fate.acknowledged, fate.out_of_order) =
                (number, true, false, true);
            (fate.refused, fate.tried_at, fate.left_behind) = (0, None, false);
            (fate.refusals, fate.refused_at) = (0, None);
            fate.passing = false;
        }
    }

    fn recover(&mut self) -> bool {
        let number = self.process.number;
        let left: Vec<(u64, u64)> = self
            .files
            .iter()
            .filter(|(_, file)| file.process != number)
            .map(|(id, file)| (*id, file.bytes.len() as u64))
            .collect();
        self.say(|_| format!("core: takes over {} files", left.len()));
        for (file, bytes) in left {
            let path = PathBuf::from(file.to_string()).into_boxed_path();
            let id = self.process.index.left_behind(path, bytes);
            self.process.files.insert(id, file);
        }
        self.process.takes_over = !self.process.files.is_empty();
        self.process.takes_over
    }

    fn read(&mut self, segment: SegmentId) -> Outcome {
        let Some(entry) = self.process.reading.take() else {
            return Outcome::Read(segment, Err(Unread::NotNow));
        };
        let found = self.process.files.get(&segment).and_then(|file| self.files.get(file)).cloned();
        let Some(file) = found else { return Outcome::Read(segment, Err(Unread::Damaged(0))) };
        if file.damaged {
            self.say(|_| format!("disk: segment {segment} is damaged: {:?}", file.events));
            for event in &file.events {
                self.events[*event as usize].excused = true;
            }
            self.excuse_introductions(&file.introduced);
            if entry.left_behind.is_some() {
                // It was never in this ledger; the file is removed.
                self.process.index.remove(segment);
                if let Some(file) = self.process.files.remove(&segment) {
                    self.files.remove(&file);
                }
                return Outcome::Read(segment, Err(Unread::Damaged(0)));
            }
            self.process.damaged += entry.events;
            return Outcome::Read(segment, Err(Unread::Damaged(entry.events)));
        }
        if entry.left_behind.is_some() && !entry.counted {
            self.receive_again(&file.events);
            self.process.read.push(segment);
        }
        let content =
            self.content(&file.bytes, entry.length).expect("what was written can be read");
        if entry.left_behind.is_some() && !entry.counted {
            self.process.index.count(segment, file.events.len() as u64, content.hash);
        }
        let found: Vec<u32> = content.request.data().flat_map(|lines| numbers(&lines)).collect();
        if found != file.events || entry.hash.is_some_and(|hash| hash != content.hash) {
            let detail = format!("segment {segment} has {:?}, read are {found:?}", file.events);
            self.fail("what is on disk comes back", detail);
        }
        let charge = self.process.gauge.charge(content.request.cost());
        Outcome::Read(segment, Ok((Box::new(content.request), charge, file.doubt)))
    }

    fn count(&mut self) {
        let Some(segment) = self.process.reading.as_ref().map(|entry| entry.id) else { return };
        if matches!(self.read(segment), Outcome::Read(_, Ok(_))) {
            self.process.index.put_counted_back(segment);
        }
    }

    fn count_poll(&mut self, step: &Step) {
        let (at, polls) = &mut self.process.polls;
        if *at == self.now {
            *polls += 1;
        } else {
            (*at, *polls) = (self.now, 0);
        }
        let too_many = *polls > 2000;
        let kind = match step {
            Step::Wait(_) => 1,
            Step::Send { .. } => 2,
            Step::SendLedger { .. } => 3,
            Step::Recover => 4,
            Step::Read(_) => 5,
            Step::Spool(_) => 6,
            Step::Remove(_) => 7,
            Step::Discard(_) => 8,
            Step::CloseIntake(_) => 9,
            Step::Print(_) => 10,
            Step::Log(..) => 11,
            Step::Reply(_) => 12,
            Step::Exit => 13,
            Step::Prepare { .. } => 14,
            Step::PutBack(_) => 15,
            Step::Count => 16,
        };
        self.digest = (self.digest ^ kind ^ (self.now << 4)).wrapping_mul(0x0100_0000_01b3);
        if too_many {
            self.fail(
                "no busy loop",
                format!("more than 2000 steps at one moment, the last one {step:?}"),
            );
        }
    }
}

/// The requests whose function has ended, and whether it failed.
fn ends(signals: &[Signal]) -> Vec<(Arc<str>, bool)> {
    let end = |signal: &Signal| match signal {
        Signal::Done { request_id, failed, .. } => Some((Arc::clone(request_id), *failed)),
        _ => None,
    };
    signals.iter().filter_map(end).collect()
}

/// The numbers of a batch's events.
pub(crate) fn batch_numbers(batch: &Batch) -> Vec<u32> {
    let events = batch.remaining().iter();
    events.flat_map(|event| numbers(event.text.of(batch.bytes()))).collect()
}

/// Whether it may be for what the records hold.
fn is_content(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidRequest
            | ErrorKind::Configuration
            | ErrorKind::Transient
            | ErrorKind::Credentials
    )
}

fn outcome_text(verdict: &Verdict) -> String {
    let kept = verdict.stored.iter().filter(|stored| **stored).count();
    let answer = match &verdict.sent {
        Ok(outcomes) => {
            let taken = outcomes.iter().filter(|outcome| **outcome == RecordOutcome::Taken).count();
            format!("{taken} of {} taken", outcomes.len())
        }
        Err((error, _)) => {
            format!("{}{}", error.code, if error.ambiguous { ", ambiguous" } else { "" })
        }
    };
    format!("{answer}, {kept} stored, after {} ms", verdict.takes / MS)
}
