//! The HTTP side: Extensions API and Telemetry API, with the answers and the refusals of the published code.
//!
//! One thread per connection; `next` parks its thread until there is an event.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use super::events::{self, quoted};
use super::registry::Refused;
use super::subscription;
use super::world::{Shared, World};
use super::{ApiCall, Expected, NextCall};
use crate::clock::iso_millis;
use crate::http::{Request, Wire, answer};
use crate::server::Serve;

/// The largest body that a caller may send.
const BODY_LIMIT: usize = 1024 * 1024;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

pub(crate) struct Api(pub(crate) Arc<Shared>);

/// An answer: status, headers, body.
struct Reply(u16, Vec<(&'static str, String)>, String);

impl Reply {
    fn json(status: u16, body: String) -> Self {
        Self(status, vec![(JSON.0, JSON.1.to_owned())], body)
    }

    fn error(status: u16, kind: &str, message: &str) -> Self {
        let body = format!("{{\"errorMessage\":{},\"errorType\":{}}}\n", go(message), go(kind));
        Self::json(status, body)
    }

    fn internal() -> Self {
        Self::error(500, "InternalServerError", "Internal Server Error")
    }
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Self {
        Self::error(403, &refused.kind, &refused.message)
    }
}

/// A JSON string as Go's encoder writes it.
fn go(text: &str) -> String {
    quoted(text).replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

impl Serve for Api {
    fn serve(&self, _: u64, stream: TcpStream) {
        let mut wire = Wire::new(stream);
        while let Ok(request) = wire.request(BODY_LIMIT, || ()) {
            let Some(reply) = self.handle(&request) else { return };
            let headers: Vec<(&str, &str)> =
                reply.1.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let bytes = answer(reply.0, &headers, reply.2.as_bytes());
            if std::io::Write::write_all(&mut wire.stream, &bytes).is_err() {
                return;
            }
        }
    }
}

impl Api {
    /// `None` when the caller is to get no answer, because it is gone or will be.
    fn handle(&self, request: &Request) -> Option<Reply> {
        let call = self.note(request);
        let id = request.header("lambda-extension-identifier");
        let reply = match (request.method.as_str(), request.target.as_str()) {
            ("POST", "/2020-01-01/extension/register") => self.register(request),
            ("GET", "/2020-01-01/extension/event/next") => self.next(request, id)?,
            ("POST", "/2020-01-01/extension/init/error") => self.fail(request, id, true),
            ("POST", "/2020-01-01/extension/exit/error") => self.fail(request, id, false),
            ("PUT", "/2022-07-01/telemetry") => self.subscribe(request, id),
            _ => Reply(404, vec![(TEXT.0, TEXT.1.to_owned())], "404 page not found\n".to_owned()),
        };
        self.0.change(|world| world.calls[call].status = reply.0);
        Some(reply)
    }

    fn note(&self, request: &Request) -> usize {
        self.0.change(|world| {
            world.calls.push(ApiCall {
                at: request.started.saturating_duration_since(world.started),
                generation: world.generation,
                method: request.method.clone(),
                path: request.target.clone(),
                headers: request.headers.clone(),
                body: String::from_utf8_lossy(&request.body).into_owned(),
                status: 0,
            });
            world.calls.len() - 1
        })
    }

    fn register(&self, request: &Request) -> Reply {
        let setup = &self.0.setup;
        match setup.faults.register {
            Some(403) => {
                return Reply::error(
                    403,
                    "Extension.RegistrationClosed",
                    "Extension registration closed already",
                );
            }
            Some(_) => return Reply::internal(),
            None => {}
        }
        let id = uuid::Uuid::new_v4().to_string();
        let name = request.header("lambda-extension-name");
        let result = self
            .0
            .change(|world| world.registry.register(name, &request.body, id.clone()).map(|_| ()));
        if let Err(refused) = result {
            return refused.into();
        }
        let features = request.header("lambda-extension-accept-feature").unwrap_or_default();
        let wants_account = features.split(',').any(|feature| feature.trim() == "accountId");
        let account = if wants_account && !setup.account.is_empty() {
            format!(r#""accountId":{},"#, go(&setup.account))
        } else {
            String::new()
        };
        let (function, version) = (go(&setup.identity.function), go(&setup.identity.version));
        let handler = go(&setup.handler);
        let body = format!(
            "{{{account}\"functionName\":{function},\"functionVersion\":{version},\"handler\":{handler}}}\n"
        );
        let mut reply = Reply::json(200, body);
        reply.1.push(("Lambda-Extension-Identifier", id));
        reply
    }

    fn next(&self, request: &Request, id: Option<&str>) -> Option<Reply> {
        let shared = &self.0;
        let in_flight = shared.setup.in_flight.as_ref().map_or(0, |probe| probe());
        let nth =
            shared.look().calls.iter().filter(|call| call.path.ends_with("/event/next")).count();
        match shared.setup.faults.next.iter().find(|(number, _)| *number == nth) {
            Some((_, 403)) => {
                let text = "State transition from Ready to Ready failed. Error: State transition is not allowed";
                return Some(Reply::error(403, "Extension.InvalidExtensionState", text));
            }
            Some(_) => return Some(Reply::internal()),
            None => {}
        }
        let (generation, external) =
            match shared.change(|world| take_next(world, id, request.started, in_flight)) {
                Ok(taken) => taken,
                Err(refused) => return Some(refused.into()),
            };
        // The event that was handed out, or that the caller's process is gone.
        let (kind, event) = shared
            .wait(None, |world| match &world.outbox {
                _ if world.generation != generation || world.exit.is_some() => Some(None),
                Some(_) if external => {
                    world.registry.run();
                    Some(world.outbox.take())
                }
                _ => None,
            })
            .flatten()?;
        shared.change(|_| ());
        let mut headers = Vec::new();
        if kind == "INVOKE" {
            headers.push((JSON.0, JSON.1.to_owned()));
            headers.push(("Lambda-Extension-Event-Identifier", uuid::Uuid::new_v4().to_string()));
        } else {
            headers.push((TEXT.0, TEXT.1.to_owned()));
        }
        Some(Reply(200, headers, event))
    }

    fn fail(&self, request: &Request, id: Option<&str>, init: bool) -> Reply {
        let error_type = request.header("lambda-extension-function-error-type");
        let kind = if init { "Extension.InitError" } else { "Extension.ExitError" };
        let result = self.0.change(|world| {
            world.registry.fail(id, init, error_type)?;
            let reason = error_type.unwrap_or_default().to_owned();
            world.failure.get_or_insert((kind, reason));
            Ok::<_, Refused>(())
        });
        match result {
            Ok(()) => Reply::json(202, "{\"status\":\"OK\"}\n".to_owned()),
            Err(refused) => refused.into(),
        }
    }

    fn subscribe(&self, request: &Request, id: Option<&str>) -> Reply {
        let setup = &self.0.setup;
        let schema = format!(
            r#""schemaVersion":"{}""#,
            setup.faults.refused_schema.as_deref().unwrap_or("-")
        );
        let body = String::from_utf8_lossy(&request.body).replace(' ', "");
        match setup.faults.subscribe {
            Some(202) => {
                return Reply::error(
                    202,
                    "Telemetry.NotSupported",
                    "Telemetry API is not supported",
                )
                .bare();
            }
            Some(400) => return invalid("types should not be empty"),
            Some(403) => return closed(setup.identity.managed),
            Some(404) => {
                return Reply(
                    404,
                    vec![(TEXT.0, TEXT.1.to_owned())],
                    "404 page not found\n".to_owned(),
                );
            }
            Some(_) => return Reply::internal(),
            None if body.contains(&schema) => return invalid("schemaVersion is not supported"),
            None => {}
        }
        let (managed, keep_first) = (setup.identity.managed, setup.leeway.keep_first_subscription);
        self.0.change(|world| {
            let name = match world.registry.identify(id, false) {
                Ok(extension) => extension.name.clone(),
                Err(refused) => return refused.into(),
            };
            if !world.window_open {
                return closed(managed);
            }
            let subscription = match subscription::parse(&request.body, managed) {
                Ok(subscription) => subscription,
                Err(problems) => return invalid(&problems),
            };
            let types = subscription.types.clone();
            let again = world.telemetry.subscribe(subscription, keep_first);
            let record = events::subscribed(&name, again, &types).into_bytes();
            let time = iso_millis(std::time::SystemTime::now());
            world.emit("platform.telemetrySubscription", record, Expected::Absent, time);
            Reply(200, vec![(TEXT.0, TEXT.1.to_owned())], "\"OK\"".to_owned())
        })
    }
}

impl Reply {
    /// Without the line end that most errors have.
    fn bare(mut self) -> Self {
        self.2.truncate(self.2.trim_end().len());
        self
    }
}

fn invalid(problems: &str) -> Reply {
    Reply::json(
        400,
        format!(r#"{{"errorType":"ValidationError","errorMessage":{}}}"#, go(problems)),
    )
}

fn closed(managed: bool) -> Reply {
    let text = if managed {
        "Telemetry API subscription is closed"
    } else {
        "Telemetry API subscription is closed already"
    };
    Reply::error(403, "Telemetry.SubscriptionClosed", text)
}

fn take_next(
    world: &mut World,
    id: Option<&str>,
    at: Instant,
    in_flight: usize,
) -> Result<(u32, bool), Refused> {
    let external = world.registry.next(id)?;
    let generation = world.generation;
    if external {
        world.nexts.push(NextCall { at, generation, in_flight });
    }
    Ok((generation, external))
}
