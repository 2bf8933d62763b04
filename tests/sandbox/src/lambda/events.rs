//! The records of Lambda's own events, in the shapes that were seen in production. Pure.

use std::fmt::Write as _;
use std::time::Duration;

/// What the records of one sandbox have in common.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) function: String,
    pub(crate) version: String,
    pub(crate) arn: String,
    pub(crate) log_stream: String,
    pub(crate) initialization: String,
    pub(crate) memory_mb: u32,
    pub(crate) managed: bool,
}

/// What the records of one invocation have in common.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) request_id: String,
    pub(crate) tracing: Option<String>,
    pub(crate) tenant: Option<String>,
}

/// How something ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) status: &'static str,
    pub(crate) error_type: Option<String>,
}

impl Ending {
    pub(crate) const SUCCESS: Self = Self { status: "success", error_type: None };

    fn json(&self) -> String {
        match &self.error_type {
            Some(kind) => format!(r#""status":"{}","errorType":{}"#, self.status, quoted(kind)),
            None => format!(r#""status":"{}""#, self.status),
        }
    }
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Milliseconds with three decimals, as Lambda gives durations.
fn millis(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1000.0)
}

impl Call {
    fn tail(&self) -> String {
        let mut tail = String::new();
        if let Some(value) = &self.tracing {
            let _ = write!(
                tail,
                r#","tracing":{{"spanId":"54565fb41ac79632","type":"X-Amzn-Trace-Id","value":{}}}"#,
                quoted(value)
            );
        }
        if let Some(tenant) = &self.tenant {
            let _ = write!(tail, r#","tenantId":{}"#, quoted(tenant));
        }
        tail
    }

    /// The answer to `next`.
    pub(crate) fn invoke(&self, arn: &str, deadline_ms: i64) -> String {
        let mut event = format!(
            r#"{{"eventType":"INVOKE","deadlineMs":{deadline_ms},"requestId":{},"invokedFunctionArn":{}"#,
            quoted(&self.request_id),
            quoted(arn)
        );
        if let Some(value) = &self.tracing {
            let _ = write!(
                event,
                r#","tracing":{{"type":"X-Amzn-Trace-Id","value":{}}}"#,
                quoted(value)
            );
        }
        event + "}"
    }

    pub(crate) fn start(&self, identity: &Identity) -> String {
        format!(
            r#"{{"requestId":{},"functionArn":{},"version":{}{}}}"#,
            quoted(&self.request_id),
            quoted(&identity.arn),
            quoted(&identity.version),
            self.tail()
        )
    }

    pub(crate) fn runtime_done(&self, ending: &Ending, start: &str, took: Duration) -> String {
        let responded = ending.status == "success";
        let produced = if responded { 40 } else { 0 };
        let spans = if responded {
            let share = millis(took / 2);
            format!(
                r#""spans":[{{"name":"responseLatency","start":"{start}","durationMs":{share}}},{{"name":"responseDuration","start":"{start}","durationMs":0.056}},{{"name":"runtimeOverhead","start":"{start}","durationMs":{share}}}],"#
            )
        } else {
            String::new()
        };
        format!(
            r#"{{"requestId":{},{},{spans}"metrics":{{"durationMs":{},"producedBytes":{produced}}}{}}}"#,
            quoted(&self.request_id),
            ending.json(),
            millis(took),
            self.tail()
        )
    }

    /// `overhead` is the extension's share; `init` the init's time, in the report of the first invocation only.
    pub(crate) fn report(
        &self,
        identity: &Identity,
        ending: &Ending,
        start: &str,
        took: Duration,
        overhead: Duration,
        init: Option<Duration>,
    ) -> String {
        let id = quoted(&self.request_id);
        let tail = self.tail();
        if identity.managed {
            let share = millis(took / 2);
            return format!(
                r#"{{"requestId":{id},{},"metrics":{{"durationMs":{}}},"spans":[{{"name":"responseLatency","start":"{start}","durationMs":{share}}},{{"name":"responseDuration","start":"{start}","durationMs":0.127}}]{tail}}}"#,
                ending.json(),
                millis(took)
            );
        }
        let billed = (took + init.unwrap_or_default()).as_micros().div_ceil(1000);
        let memory = identity.memory_mb;
        let init =
            init.map_or(String::new(), |init| format!(r#","initDurationMs":{}"#, millis(init)));
        format!(
            r#"{{"requestId":{id},"metrics":{{"durationMs":{},"billedDurationMs":{billed},"memorySizeMB":{memory},"maxMemoryUsedMB":67{init}}},"spans":[{{"name":"extensionOverhead","start":"{start}","durationMs":{}}}],{}{tail}}}"#,
            millis(took),
            millis(overhead),
            ending.json()
        )
    }
}

impl Identity {
    pub(crate) fn init_start(&self, phase: &str) -> String {
        format!(
            r#"{{"initializationType":"{}","phase":"{phase}","runtimeVersion":"nodejs:22.mainline.v122","runtimeVersionArn":"arn:aws:lambda:us-east-1::runtime:0123abcd","functionName":{},"functionVersion":{},"instanceId":{},"instanceMaxMemory":{}}}"#,
            self.initialization,
            quoted(&self.function),
            quoted(&self.version),
            quoted(&self.log_stream),
            u64::from(self.memory_mb) * 1_048_576
        )
    }

    pub(crate) fn init_runtime_done(&self, phase: &str, ending: &Ending) -> String {
        format!(
            r#"{{"initializationType":"{}","phase":"{phase}",{}}}"#,
            self.initialization,
            ending.json()
        )
    }

    pub(crate) fn init_report(&self, phase: &str, ending: &Ending, took: Duration) -> String {
        format!(
            r#"{{"initializationType":"{}","phase":"{phase}",{},"metrics":{{"durationMs":{}}}}}"#,
            self.initialization,
            ending.json(),
            millis(took)
        )
    }
}

pub(crate) fn extension(
    name: &str,
    state: &str,
    events: &[String],
    error_type: Option<&str>,
) -> String {
    let events = serde_json::Value::from(events.to_vec());
    let error =
        error_type.map_or(String::new(), |kind| format!(r#","errorType":{}"#, quoted(kind)));
    format!(r#"{{"name":{},"state":"{state}","events":{events}{error}}}"#, quoted(name))
}

pub(crate) fn subscribed(name: &str, again: bool, types: &[String]) -> String {
    let state = if again { "Already subscribed" } else { "Subscribed" };
    format!(
        r#"{{"name":{},"state":"{state}","types":{}}}"#,
        quoted(name),
        serde_json::Value::from(types.to_vec())
    )
}

pub(crate) fn logs_dropped(records: usize, bytes: usize) -> String {
    format!(
        r#"{{"droppedBytes":{bytes},"droppedRecords":{records},"reason":"Some logs were dropped because the downstream consumer is slower than the logs production rate"}}"#
    )
}

/// The answer to `next` at the end.
pub(crate) fn shutdown(reason: &str, deadline_ms: i64) -> String {
    format!(
        r#"{{"eventType":"SHUTDOWN","deadlineMs":{deadline_ms},"shutdownReason":{}}}"#,
        quoted(reason)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn identity(managed: bool) -> Identity {
        Identity {
            function: "orders".to_owned(),
            version: "$LATEST".to_owned(),
            arn: "arn:aws:lambda:us-east-1:123456789012:function:orders:live".to_owned(),
            log_stream: "2026/11/23/orders[$LATEST]22be".to_owned(),
            initialization: "on-demand".to_owned(),
            memory_mb: 128,
            managed,
        }
    }

    #[test]
    fn every_shape_is_json() {
        let call = Call {
            request_id: "6d68ca91-49c9-448d-89b8-7ca3e6dc66aa".to_owned(),
            tracing: Some(
                "Root=1-62e900b2-710d76f009d6e7785905449a;Parent=0efbd19962d95b05;Sampled=1"
                    .to_owned(),
            ),
            tenant: Some("blue".to_owned()),
        };
        let here = identity(false);
        let took = Duration::from_micros(11_185);
        let crash = Ending { status: "error", error_type: Some("Runtime.ExitError".to_owned()) };
        let texts = [
            here.init_start("init"),
            here.init_runtime_done("init", &Ending::SUCCESS),
            here.init_report("invoke", &crash, took),
            extension("shipper", "Ready", &["INVOKE".to_owned()], None),
            extension("shipper", "LaunchError", &[], Some("PermissionDenied")),
            subscribed("shipper", true, &["platform".to_owned()]),
            logs_dropped(3, 400),
            shutdown("spindown", 1),
            call.start(&here),
            call.invoke(&here.arn, 2),
            call.runtime_done(&Ending::SUCCESS, "T", took),
            call.runtime_done(&crash, "T", took),
            call.report(&here, &Ending::SUCCESS, "T", took, took, Some(took)),
            call.report(&identity(true), &Ending::SUCCESS, "T", took, took, None),
        ];
        let read: Vec<Value> =
            texts.iter().map(|text| serde_json::from_str(text).expect(text)).collect();
        assert_eq!(read[10]["metrics"]["durationMs"], 11.185);
        assert_eq!(read[12]["metrics"]["billedDurationMs"], 23);
        assert_eq!(read[13]["metrics"].as_object().unwrap().len(), 1);
        assert_eq!(read[8]["tenantId"], "blue");
    }
}
