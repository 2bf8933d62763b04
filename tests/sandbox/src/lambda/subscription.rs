//! The body of `PUT /2022-07-01/telemetry`, held against AWS's ranges. Pure.

use std::time::Duration;

use serde_json::Value;

/// A subscription that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// `2022-07-01`, `2022-12-13` or `2025-01-29`.
    pub schema: String,
    /// Of `platform`, `function`, `extension`.
    pub types: Vec<String>,
    /// Events in a batch at most.
    pub max_items: usize,
    /// Bytes at which a batch is sent.
    pub max_bytes: usize,
    /// How long a batch waits after its first event.
    pub timeout: Duration,
    /// Of the listener.
    pub port: u16,
    /// Of the destination, with its leading slash.
    pub path: String,
}

const SCHEMAS: [&str; 3] = ["2022-07-01", "2022-12-13", "2025-01-29"];
const TYPES: [&str; 3] = ["platform", "function", "extension"];

/// Reads a subscription; every problem is named, joined by `; ` as AWS does.
pub(crate) fn parse(body: &[u8], managed: bool) -> Result<Subscription, String> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Err("request body is not valid JSON".to_owned());
    };
    let mut problems = Vec::new();
    let schema = body["schemaVersion"].as_str().unwrap_or_default().to_owned();
    if !SCHEMAS.contains(&schema.as_str()) || managed && schema != "2025-01-29" {
        problems.push(format!("schemaVersion '{schema}' is not supported"));
    }
    let types = types(&body["types"], &mut problems);
    let buffering = &body["buffering"];
    let mut range = |key: &str, default: u64, least: u64, most: u64| match &buffering[key] {
        Value::Null => default,
        value => {
            value.as_u64().filter(|number| (least..=most).contains(number)).unwrap_or_else(|| {
                problems.push(format!("buffering.{key} must be between {least} and {most}"));
                default
            })
        }
    };
    let max_items = range("maxItems", 10_000, 1_000, 10_000);
    let max_bytes = range("maxBytes", 262_144, 262_144, 1_048_576);
    let timeout = range("timeoutMs", 1_000, 25, 30_000);
    if body["destination"]["protocol"] != "HTTP" {
        problems.push("destination.protocol should be HTTP".to_owned());
    }
    let uri = body["destination"]["URI"].as_str().unwrap_or_default();
    let place = destination(uri).map_err(|problem| problems.push(problem));
    let Ok((port, path)) = place else { return Err(problems.join("; ")) };
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let timeout = Duration::from_millis(timeout);
    Ok(Subscription {
        schema,
        types,
        max_items: size(max_items),
        max_bytes: size(max_bytes),
        timeout,
        port,
        path,
    })
}

fn types(value: &Value, problems: &mut Vec<String>) -> Vec<String> {
    let types: Vec<String> = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if types.is_empty() {
        problems.push("types should not be empty".to_owned());
    }
    if let Some(unknown) = types.iter().find(|name| !TYPES.contains(&name.as_str())) {
        problems.push(format!("unknown type '{unknown}'"));
    }
    types
}

fn destination(uri: &str) -> Result<(u16, String), String> {
    let Some(rest) = uri.strip_prefix("http://") else {
        return Err("URI scheme should be http".to_owned());
    };
    let (authority, path) =
        rest.split_once('/').map_or((rest, "/".to_owned()), |(a, p)| (a, format!("/{p}")));
    let Some((host, port)) = authority.split_once(':') else {
        return Err("URI port is not provided".to_owned());
    };
    if host != "sandbox.localdomain" && host != "sandbox" {
        return Err(
            "Invalid destination: destination.URI host must be sandbox.localdomain".to_owned()
        );
    }
    match port.parse() {
        Ok(9001) => Err("URI port 9001 is reserved".to_owned()),
        Ok(port) if port > 0 => Ok((port, path)),
        _ => Err("URI port is not provided".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(schema: &str, buffering: &str, uri: &str) -> Vec<u8> {
        format!(
            r#"{{"schemaVersion":"{schema}","types":["platform","function"],"buffering":{buffering},"destination":{{"protocol":"HTTP","URI":"{uri}"}}}}"#
        )
        .into_bytes()
    }

    const URI: &str = "http://sandbox.localdomain:4243/secret";

    #[test]
    fn a_good_one() {
        let taken = parse(
            &body("2025-01-29", r#"{"maxItems":1000,"maxBytes":262144,"timeoutMs":25}"#, URI),
            true,
        )
        .unwrap();
        assert_eq!((taken.port, taken.path.as_str(), taken.max_items), (4243, "/secret", 1000));
        assert_eq!(parse(&body("2022-07-01", "{}", "http://sandbox:80"), false).unwrap().path, "/");
    }

    #[test]
    fn what_aws_refuses() {
        let problem = |schema: &str, buffering: &str, uri: &str| {
            parse(&body(schema, buffering, uri), false).unwrap_err()
        };
        assert!(problem("2024-01-01", "{}", URI).contains("schemaVersion"));
        assert!(problem("2022-12-13", r#"{"maxItems":999}"#, URI).contains("maxItems"));
        assert!(problem("2022-12-13", r#"{"maxBytes":1048577}"#, URI).contains("maxBytes"));
        assert!(problem("2022-12-13", r#"{"timeoutMs":24}"#, URI).contains("timeoutMs"));
        assert!(problem("2022-12-13", "{}", "http://127.0.0.1:4243").contains("host must be"));
        assert_eq!(
            problem("2022-12-13", "{}", "http://sandbox.localdomain/"),
            "URI port is not provided"
        );
        assert!(problem("2022-12-13", "{}", "http://sandbox:9001").contains("reserved"));
        assert!(
            parse(&body("2022-12-13", "{}", URI), true).is_err(),
            "managed instances take the newest only"
        );
        let empty = br#"{"schemaVersion":"2022-12-13","types":[],"destination":{"protocol":"HTTP","URI":"http://sandbox/"}}"#;
        assert_eq!(
            parse(empty, false).unwrap_err(),
            "types should not be empty; URI port is not provided"
        );
    }
}
