//! One life of the extension in a Lambda that does the least: one API connection, one telemetry connection, one thread, no freeze. What it
//! posted is counted, and held against what arrived.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use sandbox::{iso_millis, unix_millis};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::Result;
use crate::kinesis::{Arrived, Kinesis, MARK};
use crate::memory::{self, Curve};
use crate::wire::Connection;

/// Of the function, as INVOKE says it.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Of SHUTDOWN.
const WINDOW: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
const ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:orders";

/// What a life is like.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) program: PathBuf,
    /// What starts it: an emulator of another architecture.
    pub(crate) runner: Vec<String>,
    /// Where such an emulator keeps the program's memory.
    pub(crate) within: Option<Range<u64>>,
    /// `FLUSH`, or `None` for a Managed Instance.
    pub(crate) flush: Option<&'static str>,
    pub(crate) length: Length,
    /// In a second; as fast as possible when 0.
    pub(crate) rate: u32,
    pub(crate) logs: u64,
    pub(crate) log_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Invocations(u64),
    Time(Duration),
}

/// What a life was like.
pub(crate) struct Life {
    pub(crate) curve: Curve,
    pub(crate) invocations: u64,
    pub(crate) events: u64,
    pub(crate) cpu: Duration,
    pub(crate) took: Duration,
}

/// # Errors
/// When the extension does not do what it should: it ends, hangs, writes a line, loses, repeats or miscounts an event.
pub(crate) fn live(load: &Load) -> Result<Life> {
    let kinesis = Kinesis::start()?;
    let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = Port::reserve()?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("stderr");
    let mut command = match load.runner.split_first() {
        Some((runner, arguments)) => {
            let mut command = Command::new(runner);
            command.args(arguments).arg(&load.program);
            command
        }
        None => Command::new(&load.program),
    };
    let kind = if load.flush.is_some() { "on-demand" } else { "lambda-managed-instances" };
    command.env_clear().envs([
        ("AWS_LAMBDA_RUNTIME_API", api.local_addr()?.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", kind.to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "ASIASOAK000EXAMPLE00".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "soak/secret/of/forty/characters/or/so".to_owned()),
        ("AWS_ENDPOINT_URL_KINESIS", format!("http://{}", kinesis.address)),
        ("TMPDIR", folder.path().display().to_string()),
        ("KINESIS_TELEMETRY_STREAM", "soak".to_owned()),
        ("KINESIS_TELEMETRY_PORT", port.number.to_string()),
    ]);
    command.envs(load.flush.map(|flush| ("KINESIS_TELEMETRY_FLUSH", flush)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
    let mut process =
        Process(command.spawn().map_err(|error| format!("{}: {error}", load.program.display()))?);
    let life = Lambda::start(load, &api, port.number, &mut process)
        .and_then(|lambda| lambda.run(&kinesis, &mut process));
    let lines = std::fs::read_to_string(&log)?;
    match life {
        Ok(life) if lines.is_empty() => Ok(life),
        Ok(_) => Err(format!("the extension wrote: {}", lines.trim()).into()),
        Err(error) => Err(format!("{error}; the extension wrote: {}", lines.trim()).into()),
    }
}

/// A port that no other socket is given while this one lives. It does not listen, so with this option the extension may.
struct Port {
    number: u16,
    _socket: Socket,
}

impl Port {
    fn reserve() -> io::Result<Port> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let number = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
        Ok(Port { number, _socket: socket })
    }
}

/// Ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Lambda<'a> {
    load: &'a Load,
    process: memory::Process,
    api: Connection,
    telemetry: Connection,
    /// The first line of each POST.
    post: String,
    body: String,
    /// The number of the next log.
    log: u64,
    filling: String,
    sent: HashMap<Vec<u8>, u64>,
}

impl<'a> Lambda<'a> {
    /// Registration and subscription, up to the first `/next`.
    fn start(
        load: &'a Load,
        listener: &TcpListener,
        port: u16,
        process: &mut Process,
    ) -> Result<Lambda<'a>> {
        let mut api = Connection::new(accept(listener, process)?)?;
        answer(
            &mut api,
            "POST /2020-01-01/extension/register",
            r#"{"functionName":"orders","functionVersion":"$LATEST","accountId":"123456789012"}"#,
        )?;
        let subscription = answer(&mut api, "PUT /2022-07-01/telemetry", "\"OK\"")?;
        let uri = subscription
            .get("destination")
            .and_then(|it| it.get("URI"))
            .and_then(Value::as_str)
            .ok_or("a subscription without a URI")?;
        let path = uri.splitn(4, '/').nth(3).unwrap_or_default();
        next(&mut api)?;
        Ok(Lambda {
            load,
            process: memory::Process { pid: process.0.id(), within: load.within.clone() },
            api,
            telemetry: Connection::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?)?,
            post: format!("POST /{path} HTTP/1.1"),
            body: String::new(),
            log: 0,
            filling: "x".repeat(load.log_bytes.saturating_sub(MARK.len() + 10)),
            sent: HashMap::new(),
        })
    }

    fn run(mut self, kinesis: &Kinesis, process: &mut Process) -> Result<Life> {
        let started = iso_millis(SystemTime::now());
        self.add(
            "platform.initStart",
            &started,
            r#"{"initializationType":"on-demand","phase":"init","instanceId":"2026/11/23/orders[$LATEST]22be"}"#,
        );
        self.add(
            "platform.initReport",
            &started,
            r#"{"initializationType":"on-demand","phase":"init","status":"success","metrics":{"durationMs":1.5}}"#,
        );
        self.send()?;
        let mut curve = Curve::new(self.process.resident_kib()?.0);
        let cpu = self.process.cpu()?;
        let begun = Instant::now();
        let mut invocations = 0;
        loop {
            let progress = match self.load.length {
                Length::Invocations(all) => invocations as f64 / all as f64,
                Length::Time(time) => begun.elapsed().as_secs_f64() / time.as_secs_f64(),
            };
            curve.sample(&self.process, progress, invocations)?;
            if progress >= 1.0 {
                break;
            }
            if self.load.rate > 0 {
                let due = Duration::from_secs_f64(invocations as f64 / f64::from(self.load.rate));
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            self.invoke(invocations)?;
            invocations += 1;
        }
        let (took, cpu) = (begun.elapsed(), self.process.cpu()?.saturating_sub(cpu));
        self.shut_down(process)?;
        let events = self.sent.values().sum();
        account(&self.sent, &kinesis.take())?;
        Ok(Life { curve, invocations, events, cpu, took })
    }

    /// Two POSTs, as from a function that runs longer than Lambda holds telemetry back; the report comes with the next invocation, as after a
    /// freeze. On a Managed Instance there is neither INVOKE nor `runtimeDone`.
    fn invoke(&mut self, number: u64) -> Result<()> {
        let id = format!("{number:08x}-49c9-448d-89b8-7ca3e6dc66aa");
        let now = SystemTime::now();
        let time = iso_millis(now);
        let managed = self.load.flush.is_none();
        if !managed {
            let deadline = unix_millis(now + TIMEOUT);
            let event = format!(
                r#"{{"eventType":"INVOKE","deadlineMs":{deadline},"requestId":"{id}","invokedFunctionArn":"{ARN}"}}"#
            );
            self.api.write(
                "HTTP/1.1 200 OK",
                "Content-Type: application/json\r\n",
                event.as_bytes(),
            )?;
        }
        self.add(
            "platform.start",
            &time,
            &format!(r#"{{"requestId":"{id}","functionArn":"{ARN}","version":"$LATEST"}}"#),
        );
        for _ in 0..self.load.logs {
            let record = format!("\"{MARK}{:09} {}\"", self.log, self.filling);
            self.log += 1;
            self.add("function", &time, &record);
        }
        self.send()?;
        if !managed {
            let metrics = r#""metrics":{"durationMs":11.185,"producedBytes":40}"#;
            self.add(
                "platform.runtimeDone",
                &time,
                &format!(r#"{{"requestId":"{id}","status":"success",{metrics}}}"#),
            );
            self.send()?;
            next(&mut self.api)?;
        }
        let metrics = r#""metrics":{"durationMs":11.185,"billedDurationMs":12,"memorySizeMB":128,"maxMemoryUsedMB":67}"#;
        self.add(
            "platform.report",
            &time,
            &format!(r#"{{"requestId":"{id}",{metrics},"status":"success"}}"#),
        );
        Ok(())
    }

    fn add(&mut self, kind: &str, time: &str, record: &str) {
        self.body.push(if self.body.is_empty() { '[' } else { ',' });
        let _ = write!(self.body, r#"{{"time":"{time}","type":"{kind}","record":{record}}}"#);
        match self.sent.get_mut(kind.as_bytes()) {
            Some(count) => *count += 1,
            None => drop(self.sent.insert(kind.as_bytes().to_vec(), 1)),
        }
    }

    fn send(&mut self) -> Result<()> {
        self.body.push(']');
        self.telemetry.write(
            &self.post,
            "Host: sandbox.localdomain\r\nContent-Type: application/json\r\n",
            self.body.as_bytes(),
        )?;
        self.body.clear();
        let message = self.telemetry.read()?.ok_or("the listener hung up")?;
        let head = self.telemetry.head(&message);
        if head.starts_with(b"HTTP/1.1 200") {
            Ok(())
        } else {
            Err(format!("a POST was answered {}", String::from_utf8_lossy(head)).into())
        }
    }

    fn shut_down(&mut self, process: &mut Process) -> Result<()> {
        let deadline = unix_millis(SystemTime::now() + WINDOW);
        // The call to `/next` that this answers has been taken: the first on a Managed Instance, else that behind the last invocation.
        let event = format!(
            r#"{{"eventType":"SHUTDOWN","deadlineMs":{deadline},"shutdownReason":"spindown"}}"#
        );
        self.api.write(
            "HTTP/1.1 200 OK",
            "Content-Type: application/json\r\n",
            event.as_bytes(),
        )?;
        if !self.body.is_empty() {
            self.send()?;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            match process.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("the extension ended with {status}").into()),
                None if Instant::now() > end => {
                    return Err("the extension did not end after SHUTDOWN".into());
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

/// The extension's connection; not for ever.
fn accept(listener: &TcpListener, process: &mut Process) -> Result<TcpStream> {
    let end = Instant::now() + PATIENCE;
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) if Instant::now() > end => return Err("the extension did not register".into()),
            Err(_) => {}
        }
        if let Some(status) = process.0.try_wait()? {
            return Err(format!("the extension ended with {status}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes one call, which must be this one, and answers it; gives its body.
fn answer(api: &mut Connection, call: &str, body: &str) -> Result<Value> {
    let message = api.read()?.ok_or("the extension hung up")?;
    expect(api.head(&message), call)?;
    let asked = serde_json::from_slice(api.body(&message))?;
    api.write(
        "HTTP/1.1 200 OK",
        "Lambda-Extension-Identifier: 6d68ca91-49c9-448d-89b8-7ca3e6dc66aa\r\n",
        body.as_bytes(),
    )?;
    Ok(asked)
}

/// The extension asks for the next event: it is done with the last one.
fn next(api: &mut Connection) -> Result<()> {
    let message = api.read()?.ok_or("the extension hung up")?;
    expect(api.head(&message), "GET /2020-01-01/extension/event/next")
}

fn expect(head: &[u8], call: &str) -> Result<()> {
    if head.starts_with(call.as_bytes()) {
        Ok(())
    } else {
        Err(format!("{call} was expected, not {}", String::from_utf8_lossy(head)).into())
    }
}

/// Every event arrived once, and the last ledger says so.
fn account(sent: &HashMap<Vec<u8>, u64>, arrived: &Arrived) -> Result<()> {
    if let Some(problem) = &arrived.problem {
        return Err(format!("Kinesis got {problem}").into());
    }
    for (kind, count) in sent {
        let found = arrived.by_type.get(kind).copied().unwrap_or(0);
        if found != *count {
            return Err(format!(
                "{found} of {count} events of type {} arrived, and the ledger says {}",
                String::from_utf8_lossy(kind),
                arrived.ledger
            )
            .into());
        }
    }
    if arrived.repeated > 0 {
        return Err(format!("{} logs arrived twice, and as many never", arrived.repeated).into());
    }
    let ledger = |key: &str| {
        arrived
            .ledger
            .pointer(key)
            .and_then(Value::as_u64)
            .ok_or_else(|| format!("no {key} in the ledger {}", arrived.ledger))
    };
    let all: u64 = sent.values().sum();
    let dropped =
        ledger("/dropped/queue")? + ledger("/dropped/rejected")? + ledger("/dropped/undelivered")?;
    if (ledger("/received")?, ledger("/delivered")?, ledger("/waiting")?, dropped)
        == (all, all, 0, 0)
    {
        Ok(())
    } else {
        Err(format!("{all} events were sent, and the ledger says {}", arrived.ledger).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(logs: u64) -> HashMap<Vec<u8>, u64> {
        HashMap::from([(b"function".to_vec(), logs)])
    }

    fn arrived(logs: u64, received: u64) -> Arrived {
        let dropped = serde_json::json!({"queue": 0, "rejected": 0, "undelivered": 0});
        let ledger = serde_json::json!({"received": received, "delivered": received, "waiting": 0, "dropped": dropped});
        Arrived { by_type: sent(logs), ledger, ..Arrived::default() }
    }

    #[test]
    fn a_lost_a_repeated_and_a_miscounted_event_fail() {
        account(&sent(5), &arrived(5, 5)).unwrap();
        assert!(account(&sent(5), &arrived(4, 5)).is_err());
        assert!(account(&sent(5), &arrived(5, 6)).is_err());
        assert!(account(&sent(5), &Arrived { repeated: 1, ..arrived(5, 5) }).is_err());
        assert!(account(&sent(5), &Arrived { ledger: Value::Null, ..arrived(5, 5) }).is_err());
    }
}
