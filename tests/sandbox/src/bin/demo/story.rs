//! What the demo does to a sandbox: a cold start, warm invocations, an error, a time-out with its reset, the end.

use std::time::{Duration, Instant};

use sandbox::{
    Fault, InitReport, Invocation, InvokeReport, Kinesis, Lambda, LambdaError, ShutdownReport,
    Which, ms,
};
use serde_json::json;

/// One invocation with all that belongs to it, or the shutdown.
pub(crate) struct Step {
    /// The chapter that begins with it.
    pub(crate) chapter: Option<&'static str>,
    pub(crate) name: &'static str,
    pub(crate) began: Instant,
    /// When the sandbox was frozen again, or gone.
    pub(crate) ended: Instant,
    pub(crate) init: Option<Init>,
    pub(crate) invocation: Option<InvokeReport>,
    /// The end of the process: that of the shutdown, or of a reset.
    pub(crate) end: Option<ShutdownReport>,
}

/// The start of a process.
pub(crate) struct Init {
    pub(crate) ended: Instant,
    /// From the start of the extension's process to its first call of `/next`.
    pub(crate) ready: Duration,
}

const TRACE: &str = "Root=1-62e900b2-710d76f009d6e7785905449a;Parent=0efbd19962d95b05;Sampled=1";
/// How long the sandbox stays frozen between two invocations.
const FROZEN: Duration = ms(80);

/// Tells the whole story; `each` is called after each step with all steps so far.
pub(crate) fn tell(
    lambda: &Lambda,
    kinesis: &Kinesis,
    each: impl FnMut(&[Step]),
) -> Result<Vec<Step>, LambdaError> {
    let mut story = Story { lambda, steps: Vec::new(), chapter: None, each };
    story.chapter =
        Some("cold start: the process starts, and the first invocation follows at once");
    story.invoke("cold start", order(4711).text("order 4711 stored").work(ms(20)))?;
    story.chapter = Some("warm invocations: text and JSON logs; the sandbox is frozen in between");
    for number in 4712..4715 {
        let stored = json!({"level": "INFO", "message": "stored", "order": number, "total": 49.90});
        story.invoke("warm", order(number).json(&stored).work(ms(20)))?;
    }
    story.chapter = Some("the stream throttles one request; what was in it is sent again");
    kinesis.fault(Fault::throttle(Which::All).times(1));
    let lines = (1..=5).map(|item| format!("item {item} priced"));
    story.invoke("throttled", Invocation::new().lines(lines).work(ms(30)))?;
    story.chapter = Some("a handled error");
    story.invoke("error", order(4715).handled_error())?;
    story.chapter = Some("a time-out after 1 s: Lambda resets the sandbox");
    story.invoke("time-out", Invocation::new().text("waiting for the warehouse").times_out())?;
    story.chapter = Some("the next invocation: a new process in the same sandbox");
    story.invoke("after the reset", order(4716).work(ms(20)))?;
    story.chapter = Some("shutdown");
    story.shut_down();
    Ok(story.steps)
}

fn order(number: u32) -> Invocation {
    Invocation::new().text(&format!("order {number} received")).pause(ms(15)).tracing(TRACE)
}

struct Story<'a, F> {
    lambda: &'a Lambda,
    steps: Vec<Step>,
    /// The one that begins with the next step.
    chapter: Option<&'static str>,
    each: F,
}

impl<F: FnMut(&[Step])> Story<'_, F> {
    /// Invokes the function, after an init where there is no process.
    fn invoke(&mut self, name: &'static str, invocation: Invocation) -> Result<(), LambdaError> {
        let began = Instant::now();
        let first = if self.steps.is_empty() { Some(self.lambda.init()?) } else { None };
        let report = self.lambda.invoke(invocation.tracing(TRACE))?;
        let ready = |init: &InitReport| Init { ended: report.started, ready: init.first_next };
        self.add(Step {
            chapter: None,
            name,
            began,
            ended: Instant::now(),
            init: first.as_ref().or(report.init.as_ref()).map(ready),
            end: report.reset.clone(),
            invocation: Some(report),
        });
        std::thread::sleep(FROZEN);
        Ok(())
    }

    fn shut_down(&mut self) {
        let began = Instant::now();
        let end = self.lambda.shutdown("spindown");
        let (init, invocation, ended) = (None, None, end.exit.at);
        let (chapter, name, end) = (None, "shutdown", Some(end));
        self.add(Step { chapter, name, began, ended, init, invocation, end });
    }

    fn add(&mut self, step: Step) {
        self.steps.push(Step { chapter: self.chapter.take(), ..step });
        (self.each)(&self.steps);
    }
}
