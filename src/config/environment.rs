//! The variables that the process was started with. They are read once: to ask the C library for
//! each of the many names, with a copy each time, took a quarter of a start.

use std::ffi::OsString;

use super::table::{PREFIX, SETTINGS};

/// Names and values. Values may be secrets.
#[derive(Default)]
pub struct Environment {
    /// Names without [`PREFIX`].
    settings: Vec<(String, String)>,
    others: Vec<(String, String)>,
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    /// A variable whose name or value is not UTF-8 counts as unset. Of several with one name the
    /// first counts.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Environment {
        let mut environment = Environment::default();
        for (name, value) in variables {
            let Ok(mut name) = name.into().into_string() else { continue };
            let value = value.into().into_string().unwrap_or_default();
            if name.starts_with(PREFIX) {
                name.drain(..PREFIX.len());
                environment.settings.push((name, value));
            } else {
                environment.others.push((name, value));
            }
        }
        environment
    }
}

impl Environment {
    /// The value of a variable that is no setting of ours, by its whole name. An empty one counts
    /// as unset: AWS's emulator sets missing credentials to "".
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        find(&self.others, name)
    }

    /// The value of a setting, by its name without [`PREFIX`]. An empty one counts as unset.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        find(&self.settings, name)
    }

    /// Variables that begin with [`PREFIX`] and are not in the table, such as a misspelt one.
    #[must_use]
    pub fn unknown(&self) -> Vec<String> {
        let names = self.settings.iter().map(|(name, _)| name);
        let unknown = names.filter(|name| !SETTINGS.iter().any(|s| s.name == name.as_str()));
        let mut unknown: Vec<String> = unknown.map(|name| [PREFIX, name].concat()).collect();
        unknown.sort();
        unknown
    }
}

fn find<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let (_, value) = variables.iter().find(|(known, _)| known == name)?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn what_is_empty_or_no_text_is_unset_and_the_first_of_a_name_counts() {
        let no_text = OsString::from_vec(vec![0xff]);
        let environment: Environment = [
            ("KINESIS_TELEMETRY_STREAM".into(), OsString::from("a")),
            ("KINESIS_TELEMETRY_STREAM".into(), "b".into()),
            ("KINESIS_TELEMETRY_PORT".into(), "".into()),
            ("STREAM".into(), "c".into()),
            ("AWS_REGION".into(), no_text.clone()),
            (no_text, "x".into()),
        ]
        .into_iter()
        .collect();
        assert_eq!(environment.setting("STREAM"), Some("a"));
        assert_eq!(environment.get("STREAM"), Some("c"));
        assert_eq!(environment.setting("PORT"), None);
        assert_eq!(environment.get("AWS_REGION"), None);
        assert_eq!(environment.get("KINESIS_TELEMETRY_STREAM"), None);
    }

    #[test]
    fn a_misspelt_setting_is_found() {
        let names = [
            "KINESIS_TELEMETRY_STREM",
            "KINESIS_TELEMETRY_STREAM",
            "KINESIS_TELEMETRY_METRICS",
            "KINESIS_TELEMETRY_",
            "PATH",
        ];
        let environment: Environment = names.map(|name| (name, "x")).into_iter().collect();
        assert_eq!(environment.unknown(), ["KINESIS_TELEMETRY_", "KINESIS_TELEMETRY_STREM"]);
    }
}
