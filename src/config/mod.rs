//! The settings: one table of names, defaults, ranges and meanings, and what each room is given of
//! them.
//!
//! The environment comes in as a value and is read nowhere else. All problems are found in one
//! pass, so that a person fixes them once. Each room owns the type of its settings and takes only
//! those; this module knows all rooms, and none of them knows it.

mod environment;
mod reader;
mod table;

use self::reader::Reader;
use crate::{dispatch, kinesis, lambda};

pub use self::environment::Environment;
pub use self::reader::{Basics, OnError, Problem};
pub use self::table::{Allowed, PREFIX, SETTINGS, Setting, help, markdown};

/// Every setting, checked: for each room its own. Made by [`read`].
#[derive(Clone, Debug)]
pub struct Config {
    /// What is subscribed to, what of that is shipped, and where it is posted.
    pub lambda: lambda::Settings,
    /// When it is sent, and what it may take in memory and on disk until then.
    pub dispatch: dispatch::Settings,
    /// Stream, endpoint, credentials, and the form of records.
    pub kinesis: kinesis::Settings,
    /// Copied into every event, in the order given.
    pub tags: Vec<(String, String)>,
}

/// Reads the settings out of the environment. The basics always come back; the rest only if nothing
/// is wrong with it.
///
/// # Errors
/// Every problem that was found.
pub fn read(environment: &Environment) -> (Basics, Result<Config, Vec<Problem>>) {
    let mut reader = Reader::new(environment);
    let basics = reader.basics();
    let kinesis = reader.kinesis(&basics);
    let dispatch = reader.dispatch(&basics);
    let lambda = reader.lambda(dispatch.max_age, dispatch.queue_bytes);
    let config = Config { lambda, dispatch, kinesis, tags: reader.tags() };
    let problems = reader.problems();
    (basics, if problems.is_empty() { Ok(config) } else { Err(problems) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dispatch::policy::FlushMode;
    use crate::kinesis::provider::CredentialsSource;

    fn with(pairs: &[(&str, &str)]) -> (Basics, Result<Config, Vec<Problem>>) {
        read(&pairs.iter().copied().collect())
    }

    const MINIMAL: [(&str, &str); 2] =
        [("KINESIS_TELEMETRY_STREAM", "telemetry"), ("AWS_REGION", "eu-west-1")];

    #[test]
    fn names_are_unique_and_defaults_are_allowed() {
        let mut names: Vec<_> = SETTINGS.iter().map(|s| s.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        for s in SETTINGS {
            match s.allowed {
                Allowed::Number(min, max) => {
                    let good = |text: &str| (min..=max).contains(&text.parse().unwrap());
                    assert!(s.default.is_empty() || good(s.default), "{}", s.name);
                }
                Allowed::OneOf(words) => {
                    assert!(s.default.is_empty() || words.contains(&s.default), "{}", s.name)
                }
                Allowed::AnyOf(words) => {
                    assert!(s.default.split(',').all(|w| words.contains(&w)), "{}", s.name)
                }
                Allowed::Port | Allowed::Text(_) => {}
            }
        }
        assert!(with(&MINIMAL).1.is_ok());
    }

    #[test]
    fn every_number_takes_its_bounds_and_nothing_beyond() {
        for s in SETTINGS {
            let Allowed::Number(min, max) = s.allowed else { continue };
            let values = [
                (Some(min), true),
                (Some(max), true),
                (min.checked_sub(1), false),
                (max.checked_add(1), false),
            ];
            for (value, good) in values.into_iter().filter_map(|(value, good)| Some((value?, good)))
            {
                let (name, value) = (format!("{PREFIX}{}", s.name), value.to_string());
                let result = with(&[MINIMAL[0], MINIMAL[1], (&name, &value)]).1;
                assert_eq!(result.is_ok(), good, "{name}={value}");
            }
        }
    }

    #[test]
    fn every_word_is_taken_and_no_other() {
        for s in SETTINGS {
            let Allowed::OneOf(words) = s.allowed else { continue };
            let name = format!("{PREFIX}{}", s.name);
            for word in words {
                assert!(with(&[MINIMAL[0], MINIMAL[1], (&name, word)]).1.is_ok(), "{name}={word}");
            }
            let problems = with(&[MINIMAL[0], MINIMAL[1], (&name, "banana")]).1.unwrap_err();
            assert_eq!(problems.len(), 1);
            assert!(
                problems[0].to_string().contains(&name)
                    && problems[0].to_string().contains("banana"),
                "{}",
                problems[0]
            );
            assert!(problems[0].to_string().contains(words[0]), "{}", problems[0]);
        }
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = with(&[
            ("KINESIS_TELEMETRY_FLUSH", "banana"),
            ("KINESIS_TELEMETRY_PORT", "9001"),
            ("KINESIS_TELEMETRY_TAGS", "novalue"),
            ("KINESIS_TELEMETRY_TYPES", "platform,logs"),
            ("KINESIS_TELEMETRY_COMPRESSION", "zip"),
        ])
        .1
        .unwrap_err();
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for name in ["STREAM", "AWS_REGION", "FLUSH", "PORT", "TAGS", "TYPES", "COMPRESSION"] {
            assert!(text.contains(name), "{name} missing in:\n{text}");
        }
        assert_eq!(problems.len(), 7, "{text}");
    }

    #[test]
    fn empty_is_unset() {
        let (_, result) = with(&[
            MINIMAL[0],
            MINIMAL[1],
            ("KINESIS_TELEMETRY_FLUSH", ""),
            ("AWS_ACCESS_KEY_ID", ""),
            ("AWS_SECRET_ACCESS_KEY", "x"),
        ]);
        let config = result.unwrap();
        assert_eq!(config.dispatch.flush, FlushMode::Adaptive);
        assert!(matches!(config.kinesis.credentials, CredentialsSource::Missing(Some(_))));
    }

    #[test]
    fn managed_instances_send_sooner_unless_set_otherwise() {
        let managed = ("AWS_LAMBDA_INITIALIZATION_TYPE", "lambda-managed-instances");
        assert_eq!(
            with(&[MINIMAL[0], MINIMAL[1], managed]).1.unwrap().dispatch.max_age,
            Duration::from_secs(1)
        );
        let set = ("KINESIS_TELEMETRY_MAX_AGE_MS", "10000");
        assert_eq!(
            with(&[MINIMAL[0], MINIMAL[1], managed, set]).1.unwrap().dispatch.max_age,
            Duration::from_secs(10)
        );
    }

    #[test]
    fn tags_keep_their_order_and_may_hold_an_equals_sign() {
        let config =
            with(&[MINIMAL[0], MINIMAL[1], ("KINESIS_TELEMETRY_TAGS", "team=payments, q=a=b ,")])
                .1
                .unwrap();
        assert_eq!(
            config.tags,
            [("team".to_owned(), "payments".to_owned()), ("q".to_owned(), "a=b".to_owned())]
        );
    }

    #[test]
    fn endpoint_variables_in_the_sdks_order() {
        let both = [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:2"),
        ];
        let config = with(&[MINIMAL[0], MINIMAL[1], both[0], both[1]]).1.unwrap();
        assert_eq!(config.kinesis.endpoint.url(), "http://127.0.0.1:2/");
        let config = with(&[MINIMAL[0], MINIMAL[1], both[0]]).1.unwrap();
        assert_eq!(config.kinesis.endpoint.url(), "http://127.0.0.1:1/");
        let config = with(&[
            MINIMAL[0],
            MINIMAL[1],
            both[0],
            ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
        ])
        .1
        .unwrap();
        assert_eq!(config.kinesis.endpoint.url(), "https://kinesis.eu-west-1.amazonaws.com/");
    }

    #[test]
    fn sts_has_an_endpoint_of_its_own() {
        let role = ("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws:iam::123456789012:role/writer");
        let arn =
            ("KINESIS_TELEMETRY_STREAM", "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/x");
        let url = |pairs: &[(&str, &str)]| {
            with(pairs).1.unwrap().kinesis.role.unwrap().endpoint.url().to_owned()
        };
        assert_eq!(url(&[MINIMAL[0], MINIMAL[1], role]), "https://sts.eu-west-1.amazonaws.com/");
        let chinese = ("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws-cn:iam::123456789012:role/writer");
        assert_eq!(url(&[arn, MINIMAL[1], chinese]), "https://sts.cn-north-1.amazonaws.com.cn/");
        assert!(
            with(&[arn, MINIMAL[1], role]).1.unwrap_err()[0]
                .to_string()
                .contains("not the partition of the stream's region; set it to arn:aws-cn:iam::")
        );
        let (own, general) = (
            ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:2"),
        );
        assert_eq!(url(&[MINIMAL[0], MINIMAL[1], role, own, general]), "http://127.0.0.1:1/");
        assert_eq!(
            url(&[
                MINIMAL[0],
                MINIMAL[1],
                role,
                general,
                ("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:3")
            ]),
            "http://127.0.0.1:2/"
        );
        for bad in [
            ("KINESIS_TELEMETRY_ROLE_ARN", "writer"),
            ("KINESIS_TELEMETRY_EXTERNAL_ID", "without-a-role"),
        ] {
            assert!(
                with(&[MINIMAL[0], MINIMAL[1], bad]).1.unwrap_err()[0].to_string().contains(bad.0)
            );
        }
    }

    #[test]
    fn a_proxy_is_only_wrong_where_it_is_used_and_its_value_is_not_shown() {
        let proxy = ("HTTPS_PROXY", "socks5://user:secret@proxy:1080");
        let problems = with(&[MINIMAL[0], MINIMAL[1], proxy]).1.unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].to_string().contains("HTTPS_PROXY")
                && !problems[0].to_string().contains("secret")
        );
        let role = ("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws:iam::123456789012:role/writer");
        assert_eq!(
            with(&[MINIMAL[0], MINIMAL[1], proxy, role]).1.unwrap_err().len(),
            1,
            "reported once"
        );
        assert!(with(&[MINIMAL[0], MINIMAL[1], proxy, ("NO_PROXY", "amazonaws.com")]).1.is_ok());
        assert!(
            with(&[MINIMAL[0], MINIMAL[1], proxy, ("AWS_ENDPOINT_URL", "http://127.0.0.1:1")])
                .1
                .is_ok()
        );
    }

    /// What STS answers is a secret: never over a network where others can read it.
    #[test]
    fn sts_is_not_called_over_plain_http_off_this_machine() {
        let role = ("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws:iam::123456789012:role/writer");
        for (name, url, good) in [
            ("AWS_ENDPOINT_URL_STS", "http://emulator:4566", false),
            ("AWS_ENDPOINT_URL", "http://emulator:4566", false),
            ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:4566", true),
            ("AWS_ENDPOINT_URL_STS", "https://emulator:4566", true),
            ("AWS_ENDPOINT_URL_KINESIS", "http://emulator:4566", true),
        ] {
            let result = with(&[MINIMAL[0], MINIMAL[1], (name, url), role]).1;
            assert_eq!(result.is_ok(), good, "{name}={url}");
            let warned = result.map(|config| {
                config.kinesis.readable_by_others().map(str::to_owned).collect::<Vec<_>>()
            });
            assert!(
                warned.is_err()
                    || warned
                        == Ok(if name.ends_with("KINESIS") {
                            vec![url.to_owned()]
                        } else {
                            Vec::new()
                        }),
                "{name}={url}"
            );
        }
        assert!(
            with(&[MINIMAL[0], MINIMAL[1], ("AWS_ENDPOINT_URL", "http://emulator:4566")]).1.is_ok(),
            "without a role there is a warning"
        );
    }

    #[test]
    fn a_problem_says_what_is_wrong_and_what_to_do() {
        let stream = "KINESIS_TELEMETRY_STREAM";
        for (variables, text) in [
            (&[][..], "KINESIS_TELEMETRY_STREAM is not set; set it to a stream name or ARN"),
            (
                &[(stream, " ")],
                "KINESIS_TELEMETRY_STREAM is not set; set it to a stream name or ARN",
            ),
            (
                &[(stream, "arn:aws:kinesis:eu-west-1:123:stream/x")],
                "KINESIS_TELEMETRY_STREAM=\"arn:aws:kinesis:eu-west-1:123:stream/x\": the ARN's fifth part is no account id of 12 digits; set it to a stream name or ARN (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME)",
            ),
            (
                &[(stream, "x"), ("AWS_REGION", "")],
                "AWS_REGION is not set; set it to the stream's region, such as eu-west-1",
            ),
            (
                &[(stream, "x"), ("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "Ireland")],
                "AWS_DEFAULT_REGION=\"Ireland\": allowed is a region such as eu-west-1",
            ),
            (
                &[(stream, "arn:aws:kinesis"), ("AWS_REGION", "")],
                "KINESIS_TELEMETRY_STREAM=\"arn:aws:kinesis\": an ARN has six parts with colons between them; set it to a stream name or ARN (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME)",
            ),
        ] {
            let variables: Vec<_> = variables.iter().copied().chain([MINIMAL[1]]).collect();
            let problems = with(&variables).1.unwrap_err();
            assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
        }
    }
}
