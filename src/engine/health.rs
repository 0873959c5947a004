//! What a container's health check is: the image's, with what was asked for in its place.

use std::time::Duration;

use serde::Deserialize;

use super::options::HealthOptions;
use super::options::supervision::HealthAction;
use crate::error::{Context, Error, Result};
use crate::monitor::health::{HealthCheck, OnFailure};

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// Docker's least for any of them.
const SHORTEST: Duration = Duration::from_millis(1);

/// The image's `Healthcheck`, as docker writes it; times are in nanoseconds, and 0 is the default.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ImageCheck {
    test: Option<Vec<String>>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

/// Puts both together; `None` where there is nothing to check. `shell` is what the image has for a line of shell.
pub fn effective(
    image: Option<&serde_json::Value>,
    asked: &HealthOptions,
    shell: &[String],
) -> Result<Option<HealthCheck>> {
    if asked.disabled {
        return Ok(None);
    }
    let image: ImageCheck = match image {
        Some(value) if !value.is_object() => return Err(Error::invalid("image config Healthcheck: not an object")),
        Some(value) => ImageCheck::deserialize(value).context("image config Healthcheck")?,
        None => ImageCheck::default(),
    };
    let Some(command) = command(asked.test.as_ref().or(image.test.as_ref()), shell)? else { return Ok(None) };
    let time = |asked: Option<u64>, image: u64, default: Duration| match asked.filter(|time| *time > 0) {
        Some(nanoseconds) => Duration::from_nanos(nanoseconds),
        None if image > 0 => Duration::from_nanos(image),
        None => default,
    };
    for (name, time) in [
        ("Interval", image.interval),
        ("Timeout", image.timeout),
        ("StartPeriod", image.start_period),
        ("StartInterval", image.start_interval),
    ] {
        // As docker: an image may not have its host check without pause.
        if time > 0 && Duration::from_nanos(time) < SHORTEST {
            return Err(Error::invalid(format!("image config Healthcheck: {name} of {time} ns is less than 1 ms")));
        }
    }
    Ok(Some(HealthCheck {
        command,
        interval: time(asked.interval, image.interval, INTERVAL),
        timeout: time(asked.timeout, image.timeout, TIMEOUT),
        start_period: time(asked.start_period, image.start_period, Duration::ZERO),
        start_interval: time(asked.start_interval, image.start_interval, START_INTERVAL),
        retries: match (asked.retries.unwrap_or(0), image.retries) {
            (0, 0) => RETRIES,
            (0, retries) | (retries, _) => retries,
        },
        on_failure: match asked.on_failure {
            HealthAction::None => OnFailure::None,
            HealthAction::Kill => OnFailure::Kill,
            HealthAction::Restart => OnFailure::Restart,
            HealthAction::Stop => OnFailure::Stop,
        },
    }))
}

/// Docker's form of a command: `NONE`, `CMD` and words, or `CMD-SHELL` and a line.
fn command(test: Option<&Vec<String>>, shell: &[String]) -> Result<Option<Vec<String>>> {
    let Some((kind, words)) = test.and_then(|test| test.split_first()) else { return Ok(None) };
    match (kind.as_str(), words) {
        ("NONE", _) => Ok(None),
        ("CMD", [_, ..]) => Ok(Some(words.to_vec())),
        ("CMD-SHELL", [line]) if shell.is_empty() => {
            Ok(Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()]))
        }
        ("CMD-SHELL", [line]) => Ok(Some(shell.iter().chain([line]).cloned().collect())),
        _ => Err(Error::invalid(format!("health check {test:?}: not NONE, CMD and words, or CMD-SHELL and a line"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn the_images_check_and_what_was_asked_for() {
        let image = json!({"Test": ["CMD-SHELL", "curl x"], "Interval": 1_000_000_000_u64, "Retries": 5});
        let check = effective(Some(&image), &HealthOptions::default(), &[]).unwrap().unwrap();
        assert_eq!(check.command, words(&["/bin/sh", "-c", "curl x"]));
        assert_eq!((check.interval, check.timeout, check.retries), (Duration::from_secs(1), TIMEOUT, 5));
        let asked = HealthOptions {
            test: Some(words(&["CMD", "probe", "-q"])),
            timeout: Some(2_000_000_000),
            retries: Some(1),
            on_failure: HealthAction::Kill,
            ..HealthOptions::default()
        };
        let check = effective(Some(&image), &asked, &[]).unwrap().unwrap();
        assert_eq!((check.command, check.interval), (words(&["probe", "-q"]), Duration::from_secs(1)));
        assert_eq!((check.timeout, check.retries), (Duration::from_secs(2), 1));
        assert_eq!(check.on_failure, OnFailure::Kill);
        let shell = words(&["/bin/ash", "-ec"]);
        let check = effective(Some(&image), &HealthOptions::default(), &shell).unwrap().unwrap();
        assert_eq!(check.command, words(&["/bin/ash", "-ec", "curl x"]));
    }

    #[test]
    fn there_may_be_none() {
        let none = HealthOptions::default();
        let disabled = HealthOptions { disabled: true, ..HealthOptions::default() };
        let image = json!({"Test": ["CMD", "x"]});
        assert!(effective(None, &none, &[]).unwrap().is_none());
        assert!(effective(Some(&image), &disabled, &[]).unwrap().is_none());
        assert!(effective(Some(&json!({"Test": ["NONE"]})), &none, &[]).unwrap().is_none());
        assert!(effective(Some(&json!({"Test": []})), &none, &[]).unwrap().is_none());
        for wrong in [json!({"Test": ["CMD"]}), json!({"Test": ["SHELL", "x"]}), json!({"Test": "x"}), json!([])] {
            assert!(effective(Some(&wrong), &none, &[]).is_err(), "{wrong}");
        }
    }
}
