//! What a container's monitor is asked to do: restart it, look after its health, keep its log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::sparse;
use crate::engine::log_attributes::{LogAttributes, check_tag};
use crate::error::{Error, Result};
use crate::monitor::RestartPolicy;
use crate::monitor::log::{Format, LogOptions};
use crate::support::units;

/// What waits for a log in non-blocking mode, as docker has it.
const BUFFER_BYTES: u64 = 1 << 20;

/// The most files of a log.
const MOST_FILES: u32 = 1000;

/// `--restart`, in docker's words.
impl FromStr for RestartPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |cause: &str| Error::invalid(format!("restart policy {text:?}: {cause}"));
        match text.split_once(':') {
            None => match text {
                "no" | "" => Ok(Self::No),
                "on-failure" => Ok(Self::OnFailure { most: None }),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                _ => Err(wrong("none of no, on-failure[:NUMBER], always, unless-stopped")),
            },
            Some(("on-failure", most)) => {
                let most = most.parse().map_err(|_| wrong("not a number of restarts"))?;
                // Docker's 0 is no limit.
                Ok(Self::OnFailure { most: Some(most).filter(|most| *most > 0) })
            }
            Some(("always" | "unless-stopped" | "no", _)) => Err(wrong("only on-failure has a number of restarts")),
            Some(_) => Err(wrong("none of no, on-failure[:NUMBER], always, unless-stopped")),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { most: None } => f.write_str("on-failure"),
            Self::OnFailure { most: Some(most) } => write!(f, "on-failure:{most}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

sparse! {
    /// `--health-*`: what differs from the image's check. Times are nanoseconds, as in docker's documents.
    pub struct HealthOptions {
        /// `--no-healthcheck`, `--health-cmd none`
        pub disabled: bool,
        /// `CMD-SHELL` and a line, or `CMD` and words.
        pub test: Option<Vec<String>>,
        pub interval: Option<u64>,
        pub timeout: Option<u64>,
        pub start_period: Option<u64>,
        pub start_interval: Option<u64>,
        pub retries: Option<u32>,
        pub on_failure: HealthAction,
    }
}

/// What is done about a container that is ill (`--health-on-failure`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthAction {
    #[default]
    None,
    Kill,
    Restart,
    Stop,
}

impl FromStr for HealthAction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "kill" => Ok(Self::Kill),
            "restart" => Ok(Self::Restart),
            "stop" => Ok(Self::Stop),
            _ => Err(Error::invalid(format!("{text:?} is none of none, kill, restart, stop"))),
        }
    }
}

/// Reads `--health-cmd`: a line for the shell, or podman's JSON list of words. `None` for `none`.
pub fn parse_health_command(text: &str) -> Option<Vec<String>> {
    if text == "none" {
        return None;
    }
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) if text.starts_with('[') => {
            let is_marked = words.first().is_some_and(|first| first == "CMD" || first == "CMD-SHELL");
            Some(if is_marked { words } else { std::iter::once("CMD".to_owned()).chain(words).collect() })
        }
        _ => Some(vec!["CMD-SHELL".to_owned(), text.to_owned()]),
    }
}

/// Reads a time of a health check, in nanoseconds; less than a millisecond is a slip, as docker has it.
pub fn parse_health_time(text: &str) -> Result<u64> {
    let nanoseconds = u64::try_from(units::parse_duration(text)?.as_nanos()).unwrap_or(u64::MAX);
    if nanoseconds != 0 && nanoseconds < 1_000_000 {
        return Err(Error::invalid(format!("{text:?}: less than a millisecond")));
    }
    Ok(nanoseconds)
}

/// Reads `--log-driver` and the words of all `--log-opt`.
pub fn parse_log(driver: &str, words: &[(String, String)]) -> Result<(LogOptions, LogAttributes)> {
    let list = |value: &str| value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let mut attributes = LogAttributes::default();
    let mut options = LogOptions { format: parse_driver(driver)?, ..LogOptions::default() };
    let (keeps, keeps_files) = (options.format.keeps(), options.format.keeps_files());
    let has_attributes = matches!(options.format, Format::Json | Format::Journald);
    let mut buffer_bytes = None;
    for (name, value) in words {
        let wrong = |cause: &str| Error::invalid(format!("log-opt {name}={value}: {cause}"));
        match name.as_str() {
            "max-size" if keeps_files && value == "-1" => options.max_bytes = None,
            "max-size" if keeps_files => match units::parse_size(value) {
                Ok(bytes) if bytes > 0 => options.max_bytes = Some(bytes),
                _ => return Err(wrong("not a positive size")),
            },
            "max-file" if keeps_files => match value.parse() {
                // At a rotation each gets another name.
                Ok(count) if (1..=MOST_FILES).contains(&count) => options.max_files = count,
                _ => return Err(wrong(&format!("not a number from 1 to {MOST_FILES}"))),
            },
            "mode" if value == "blocking" => options.buffer_bytes = None,
            "mode" if keeps && value == "non-blocking" => options.buffer_bytes = Some(BUFFER_BYTES),
            "mode" if keeps => return Err(wrong("neither blocking nor non-blocking")),
            "max-buffer-size" if keeps => match units::parse_size(value) {
                Ok(bytes) if bytes > 0 => buffer_bytes = Some(bytes),
                _ => return Err(wrong("not a positive size")),
            },
            "tag" if has_attributes => {
                check_tag(value)?;
                attributes.tag = Some(value.clone()).filter(|tag| !tag.is_empty());
            }
            "labels" if has_attributes => attributes.labels = list(value),
            "env" if has_attributes => attributes.env = list(value),
            "tag" | "labels" | "env" if keeps_files => {
                return Err(wrong("only the lines of json-file and journald have attributes"));
            }
            "labels-regex" | "env-regex" | "path" | "compress" => {
                return Err(Error::unsupported(format!("log-opt {name}={value} is not supported yet")));
            }
            _ => return Err(wrong("unknown to this driver")),
        }
    }
    match (&mut options.buffer_bytes, buffer_bytes) {
        (_, None) => {}
        (Some(bytes), Some(wanted)) => *bytes = wanted,
        // Docker's rule.
        (None, Some(_)) => return Err(Error::invalid("log-opt max-buffer-size: only with mode=non-blocking")),
    }
    Ok((options, attributes))
}

fn parse_driver(name: &str) -> Result<Format> {
    match name {
        "json-file" | "" => Ok(Format::Json),
        "k8s-file" => Ok(Format::K8s),
        "journald" => Ok(Format::Journald),
        "none" => Ok(Format::None),
        "passthrough" => Ok(Format::Passthrough),
        "local" | "syslog" | "fluentd" | "gelf" | "awslogs" | "gcplogs" | "splunk" | "etwlogs" | "passthrough-tty" => {
            Err(Error::unsupported(format!("log driver {name:?} is not supported"))
                .with_hint("json-file, k8s-file, journald, passthrough and none are"))
        }
        _ => Err(Error::invalid(format!("unknown log driver {name:?}"))),
    }
}

/// Reads `--stop-signal`: a name with or without `SIG`, or a number.
pub fn parse_signal(text: &str) -> Result<String> {
    // 0 is no signal: it asks whether there is somebody.
    match crate::sys::signal::parse(text).filter(|number| *number > 0) {
        Some(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(text.to_owned()),
        Some(_) => {
            let upper = text.to_ascii_uppercase();
            Ok(if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") })
        }
        None => Err(Error::invalid(format!("{text:?} is not a signal"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies() {
        for (text, printed) in [
            ("no", "no"),
            ("on-failure", "on-failure"),
            ("on-failure:3", "on-failure:3"),
            ("on-failure:0", "on-failure"),
            ("always", "always"),
            ("unless-stopped", "unless-stopped"),
        ] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), printed);
        }
        for text in ["yes", "on-failure:", "on-failure:-1", "always:3", "sometimes:1"] {
            assert!(text.parse::<RestartPolicy>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn health_commands_are_lines_or_words() {
        let test = |text| parse_health_command(text).map(|words| words.join("|"));
        assert_eq!(test("curl -f x || exit 1").unwrap(), "CMD-SHELL|curl -f x || exit 1");
        assert_eq!(test(r#"["curl", "-f"]"#).unwrap(), "CMD|curl|-f");
        assert_eq!(test(r#"["CMD-SHELL", "x"]"#).unwrap(), "CMD-SHELL|x");
        assert_eq!(test("[ -f /x ]").unwrap(), "CMD-SHELL|[ -f /x ]");
        assert_eq!(test("none"), None);
        assert_eq!(parse_health_time("1m30s").unwrap(), 90_000_000_000);
        assert_eq!(parse_health_time("0s").unwrap(), 0);
        assert!(parse_health_time("1us").is_err() && parse_health_time("30").is_err());
    }

    #[test]
    fn log_options_belong_to_a_driver() {
        let parse = |driver: &str, words: &[(&str, &str)]| {
            let words: Vec<_> = words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            parse_log(driver, &words).map(|(options, _)| options)
        };
        assert_eq!(parse("json-file", &[]).unwrap(), LogOptions::default());
        let bounded = parse("k8s-file", &[("max-size", "1m"), ("max-file", "2"), ("mode", "blocking")]).unwrap();
        assert_eq!(
            bounded,
            LogOptions { format: Format::K8s, max_bytes: Some(1 << 20), max_files: 2, buffer_bytes: None }
        );
        assert_eq!(parse("json-file", &[("max-size", "-1")]).unwrap().max_bytes, None);
        let waiting = |driver, words: &[(&str, &str)]| parse(driver, words).unwrap().buffer_bytes;
        assert_eq!(waiting("journald", &[("mode", "non-blocking")]), Some(1 << 20));
        assert_eq!(waiting("k8s-file", &[("max-buffer-size", "4k"), ("mode", "non-blocking")]), Some(4096));
        assert_eq!(waiting("json-file", &[("mode", "blocking")]), None);
        for (driver, name, value) in [
            ("json-file", "max-buffer-size", "4k"),
            ("none", "mode", "non-blocking"),
            ("journald", "mode", "fast"),
            ("journald", "max-size", "1m"),
            ("passthrough", "tag", "x"),
            ("none", "max-size", "1m"),
            ("json-file", "max-file", "0"),
            ("json-file", "max-size", "x"),
            ("json-file", "max-size", "0"),
            ("json-file", "compress", "true"),
            ("json-file", "tag", "{{.Nothing}}"),
            ("k8s-file", "tag", "x"),
            ("none", "labels", "x"),
            ("none", "shape", "round"),
            ("syslog", "mode", "blocking"),
        ] {
            assert!(parse(driver, &[(name, value)]).is_err(), "{driver} {name}");
        }
    }

    #[test]
    fn signals_get_their_whole_name() {
        for (text, expected) in [("TERM", "SIGTERM"), ("sigquit", "SIGQUIT"), ("9", "9"), ("SIGRTMIN+3", "SIGRTMIN+3")]
        {
            assert_eq!(parse_signal(text).unwrap(), expected);
        }
        for text in ["SIGNOTHING", "", "0", "-1", "65"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
