//! The Extensions API's states: who registered, for what, and what each may call next. Pure.

use serde::Deserialize;

/// External and internal extensions together.
const EXTENSION_LIMIT: usize = 10;

/// A refusal, with the exact words of the published code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) kind: String,
    pub(crate) message: String,
}

fn refused(kind: &str, message: impl Into<String>) -> Refused {
    Refused { kind: kind.to_owned(), message: message.into() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Registered,
    Ready,
    Running,
    InitError,
    ExitError,
}

#[derive(Clone, Debug)]
pub(crate) struct Extension {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) external: bool,
    pub(crate) events: Vec<String>,
    pub(crate) state: State,
}

/// Every extension of one generation of processes.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    /// Base name of the file that was launched: who registers under it is the external extension.
    launched: String,
    managed: bool,
    closed: bool,
    extensions: Vec<Extension>,
}

#[derive(Deserialize)]
struct Body {
    events: Option<Vec<String>>,
    #[serde(rename = "configurationKeys")]
    keys: Option<Vec<String>>,
}

impl Registry {
    pub(crate) fn new(launched: &str, managed: bool) -> Self {
        Self { launched: launched.to_owned(), managed, closed: false, extensions: Vec::new() }
    }

    /// From now on nobody new registers.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// The extension under test, once it has registered.
    pub(crate) fn external(&self) -> Option<&Extension> {
        self.extensions.iter().find(|extension| extension.external)
    }

    fn external_mut(&mut self) -> Option<&mut Extension> {
        self.extensions.iter_mut().find(|extension| extension.external)
    }

    pub(crate) fn ready(&self) -> bool {
        self.external().is_some_and(|extension| extension.state == State::Ready)
    }

    pub(crate) fn wants(&self, event: &str) -> bool {
        self.external().is_some_and(|extension| extension.events.iter().any(|name| name == event))
    }

    pub(crate) fn register(
        &mut self,
        name: Option<&str>,
        body: &[u8],
        id: String,
    ) -> Result<&Extension, Refused> {
        let name = name.filter(|name| !name.is_empty());
        let name =
            name.ok_or_else(|| refused("Extension.InvalidExtensionName", "Empty extension name"))?;
        let body: Body = serde_json::from_slice(body)
            .map_err(|_| refused("InvalidRequestFormat", "unexpected end of JSON input"))?;
        if body.keys.is_some_and(|keys| !keys.is_empty()) {
            let text = "configurationKeys are deprecated; use environment variables instead";
            return Err(refused("InvalidRequestFormat", text));
        }
        let external = name == self.launched;
        let events = body.events.unwrap_or_default();
        self.allowed(external, &events)?;
        if let Some(known) = self.extensions.iter().find(|extension| extension.name == name) {
            let text = format!(
                "State transition from {:?} to Registered failed for extension {name}. Error: State transition is not allowed",
                known.state
            );
            return Err(refused("Extension.InvalidExtensionState", text));
        }
        if self.closed {
            return Err(refused(
                "Extension.RegistrationClosed",
                "Extension registration closed already",
            ));
        }
        if self.extensions.len() >= EXTENSION_LIMIT {
            return Err(refused("Extension.TooManyExtensions", "Extension limit (10) reached"));
        }
        let name = name.to_owned();
        self.extensions.push(Extension { id, name, external, events, state: State::Registered });
        Ok(&self.extensions[self.extensions.len() - 1])
    }

    fn allowed(&self, external: bool, events: &[String]) -> Result<(), Refused> {
        for event in events {
            let problem = match event.as_str() {
                _ if self.managed && !external => {
                    "No events allowed for internal extensions".to_owned()
                }
                "SHUTDOWN" if !external => {
                    format!("{event}: ShutdownEventNotSupportedForInternalExtension")
                }
                "SHUTDOWN" => continue,
                "INVOKE" if !self.managed => continue,
                _ => format!("{event}: ErrorInvalidEventType"),
            };
            return Err(refused("Extension.InvalidEventType", problem));
        }
        Ok(())
    }

    /// Checks the identifier header of every other call. `unknown` begins the text for an id nobody has.
    pub(crate) fn identify(
        &mut self,
        id: Option<&str>,
        short: bool,
    ) -> Result<&mut Extension, Refused> {
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            let text = "Missing Lambda-Extension-Identifier header";
            return Err(refused("Extension.MissingExtensionIdentifier", text));
        };
        if uuid::Uuid::parse_str(id).is_err() {
            return Err(refused(
                "Extension.InvalidExtensionIdentifier",
                "Invalid Lambda-Extension-Identifier",
            ));
        }
        let text = if short {
            "Unknown Lambda-Extension-Identifier".to_owned()
        } else {
            format!("Unknown extension {id}")
        };
        let found = self.extensions.iter_mut().find(|extension| extension.id == id);
        found.ok_or_else(|| refused("Extension.UnknownExtensionIdentifier", text))
    }

    /// `GET /event/next`.
    pub(crate) fn next(&mut self, id: Option<&str>) -> Result<bool, Refused> {
        let extension = self.identify(id, false)?;
        extension.go(State::Ready, &[State::Registered, State::Running])?;
        Ok(extension.external)
    }

    /// The parked extension is handed an event.
    pub(crate) fn run(&mut self) {
        if let Some(extension) = self.external_mut() {
            extension.state = State::Running;
        }
    }

    /// `POST /init/error` and `POST /exit/error`. A repeat is no error.
    pub(crate) fn fail(
        &mut self,
        id: Option<&str>,
        init: bool,
        error_type: Option<&str>,
    ) -> Result<(), Refused> {
        let extension = self.identify(id, true)?;
        if error_type.is_none_or(str::is_empty) {
            return Err(refused(
                "Extension.MissingHeader",
                "Lambda-Extension-Function-Error-Type not found",
            ));
        }
        let (state, from): (State, &[State]) = if init {
            (State::InitError, &[State::Registered, State::InitError])
        } else {
            (State::ExitError, &[State::Registered, State::Ready, State::Running, State::ExitError])
        };
        extension.go(state, from)
    }
}

impl Extension {
    fn go(&mut self, to: State, from: &[State]) -> Result<(), Refused> {
        if from.contains(&self.state) {
            self.state = to;
            return Ok(());
        }
        let text = format!(
            "State transition from {:?} to {to:?} failed for extension {}. Error: State transition is not allowed",
            self.state, self.id
        );
        Err(refused("Extension.InvalidExtensionState", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4e0c7a3c-9a52-4d0f-8f0e-2d5c1a6b7e90";
    const BOTH: &[u8] = br#"{"events":["INVOKE","SHUTDOWN"]}"#;

    fn registered() -> Registry {
        let mut registry = Registry::new("shipper", false);
        registry.register(Some("shipper"), BOTH, ID.to_owned()).unwrap();
        registry
    }

    fn refusal(result: Result<impl std::fmt::Debug, Refused>) -> (String, String) {
        let refused = result.unwrap_err();
        (refused.kind, refused.message)
    }

    #[test]
    fn a_whole_life() {
        let mut registry = registered();
        assert!(registry.wants("INVOKE") && !registry.ready());
        assert!(registry.next(Some(ID)).unwrap());
        assert!(registry.ready());
        registry.run();
        assert!(!registry.ready());
        registry.next(Some(ID)).unwrap();
        let (kind, text) = refusal(registry.next(Some(ID)));
        assert_eq!(kind, "Extension.InvalidExtensionState");
        assert_eq!(
            text,
            format!(
                "State transition from Ready to Ready failed for extension {ID}. Error: State transition is not allowed"
            )
        );
    }

    #[test]
    fn registration_is_refused_in_aws_words() {
        let mut fresh = Registry::new("shipper", false);
        let mut register = |name: Option<&str>, body: &[u8]| {
            refusal(fresh.register(name, body, ID.to_owned()).map(|extension| extension.id.clone()))
        };
        assert_eq!(register(None, BOTH).0, "Extension.InvalidExtensionName");
        assert_eq!(register(Some("shipper"), b"").0, "InvalidRequestFormat");
        assert_eq!(
            register(Some("shipper"), br#"{"events":["FOO"]}"#).1,
            "FOO: ErrorInvalidEventType"
        );
        assert_eq!(
            register(Some("wrong-name"), BOTH).1,
            "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension"
        );
        let mut twice = registered();
        assert_eq!(
            refusal(twice.register(Some("shipper"), BOTH, ID.to_owned()).map(|_| ())).1,
            "State transition from Registered to Registered failed for extension shipper. Error: State transition is not allowed"
        );
        twice.close();
        assert_eq!(
            refusal(twice.register(Some("late"), b"{}", ID.to_owned()).map(|_| ())).0,
            "Extension.RegistrationClosed"
        );
    }

    #[test]
    fn managed_instances_take_shutdown_only() {
        let mut managed = Registry::new("shipper", true);
        let (kind, text) =
            refusal(managed.register(Some("shipper"), BOTH, ID.to_owned()).map(|_| ()));
        assert_eq!(
            (kind.as_str(), text.as_str()),
            ("Extension.InvalidEventType", "INVOKE: ErrorInvalidEventType")
        );
        managed.register(Some("shipper"), br#"{"events":["SHUTDOWN"]}"#, ID.to_owned()).unwrap();
    }

    #[test]
    fn identifiers_are_checked() {
        let mut registry = registered();
        assert_eq!(refusal(registry.next(None)).0, "Extension.MissingExtensionIdentifier");
        assert_eq!(refusal(registry.next(Some("x"))).1, "Invalid Lambda-Extension-Identifier");
        let other = "00000000-0000-4000-8000-000000000000";
        assert_eq!(refusal(registry.next(Some(other))).1, format!("Unknown extension {other}"));
        assert_eq!(
            refusal(registry.fail(Some(other), true, None)).1,
            "Unknown Lambda-Extension-Identifier"
        );
    }

    #[test]
    fn errors_are_reported_in_their_states_only() {
        let mut registry = registered();
        assert_eq!(refusal(registry.fail(Some(ID), true, None)).0, "Extension.MissingHeader");
        registry.fail(Some(ID), true, Some("Extension.X")).unwrap();
        registry.fail(Some(ID), true, Some("Extension.X")).unwrap();
        assert_eq!(refusal(registry.next(Some(ID))).0, "Extension.InvalidExtensionState");

        let mut running = registered();
        running.next(Some(ID)).unwrap();
        assert_eq!(
            refusal(running.fail(Some(ID), true, Some("Extension.X"))).0,
            "Extension.InvalidExtensionState"
        );
        running.fail(Some(ID), false, Some("Extension.X")).unwrap();
    }
}
