//! Sizes, durations and processor counts as people write and read them: `512m`, `1h30m`, `1.5`, `77.8MB`, `3 weeks`.
//!
//! What is read follows Docker's flags, what is printed Docker's tables. No locale, no clock.

use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};

/// Billionths in one.
const NANOS: u64 = 1_000_000_000;

/// Parses a size as docker does: a number, maybe with a fraction, and a unit of 1024 (`k m g t p`, with or without `b`
/// or `ib`, in either case); bytes without one.
pub fn parse_size(text: &str) -> Result<u64> {
    parse_size_inner(text).ok_or_else(|| {
        Error::invalid(format!("size {text:?}: not a number with a unit of b, k, m, g, t or p, such as 512m"))
    })
}

fn parse_size_inner(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').filter(|unit| !unit.is_empty()).unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let (whole, billionths) = parse_decimal(number)?;
    let bytes = (u128::from(whole) << shift) + ((u128::from(billionths) << shift) / u128::from(NANOS));
    // What the kernel and the spec count in is signed.
    u64::try_from(bytes).ok().filter(|bytes| i64::try_from(*bytes).is_ok())
}

/// Parses a number of processors, such as `1.5`, into billionths of one.
pub fn parse_cpus(text: &str) -> Result<u64> {
    let nanos = parse_decimal(text).and_then(|(whole, billionths)| whole.checked_mul(NANOS)?.checked_add(billionths));
    nanos.ok_or_else(|| Error::invalid(format!("number of CPUs {text:?}: not a decimal number, such as 1.5")))
}

/// Parses a duration as Go does: numbers with units, added up (`1h30m`, `1.5s`, `300ms`), or a bare `0`.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || Error::invalid(format!("duration {text:?}: expected numbers with units, such as 90s or 1h30m"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let mut nanoseconds: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let letters = rest[digits..].bytes().take_while(|byte| !byte.is_ascii_digit() && *byte != b'.').count();
        let (number, unit) = rest[..digits + letters].split_at(digits);
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => NANOS,
            "m" => 60 * NANOS,
            "h" => 3600 * NANOS,
            _ => return Err(wrong()),
        };
        let (whole, fraction) = parse_decimal(number).ok_or_else(wrong)?;
        nanoseconds += u128::from(whole) * u128::from(unit);
        nanoseconds += u128::from(fraction) * u128::from(unit) / u128::from(NANOS);
        rest = &rest[digits + letters..];
    }
    // Go's durations are 63 bits of nanoseconds.
    match i64::try_from(nanoseconds) {
        Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds.unsigned_abs())),
        Err(_) => Err(Error::invalid(format!("duration {text:?}: longer than 292 years"))),
    }
}

/// Splits a decimal number into the whole and the billionths; digits beyond them are refused, not rounded away.
fn parse_decimal(text: &str) -> Option<(u64, u64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    Some((whole, format!("{fraction:0<9}").parse().ok()?))
}

/// Prints a size as in tables of images: in thousands, with three digits (`77.8MB`).
pub fn human_size(bytes: u64) -> String {
    scaled(bytes, 1000, 3, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Prints a size as in tables of memory: in 1024s, with four digits (`1.945GiB`).
pub fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024, 4, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// Prints a number in the largest unit in which it is at least 1, with so many digits and without zeros at the end.
///
/// Integers all the way: a rounding that reaches the next unit is printed in it, where Docker prints `1e+03MB`.
fn scaled(bytes: u64, base: u64, digits: u32, units: &[&str]) -> String {
    let mut unit = 0;
    let mut divisor: u64 = 1;
    while unit + 1 < units.len() && bytes / divisor >= base {
        divisor *= base;
        unit += 1;
    }
    loop {
        let whole = bytes / divisor;
        let whole_digits = whole.checked_ilog10().map_or(1, |log| log + 1);
        let places = digits.saturating_sub(whole_digits);
        let scale = 10_u128.pow(places);
        let rounded = (u128::from(bytes) * scale * 2 + u128::from(divisor)) / (u128::from(divisor) * 2);
        if rounded / scale >= u128::from(base) && unit + 1 < units.len() {
            divisor *= base;
            unit += 1;
            continue;
        }
        let mut number = format!("{}", rounded / scale);
        let fraction = rounded % scale;
        if fraction != 0 {
            let fraction = format!("{fraction:0width$}", width = places as usize);
            number = format!("{number}.{}", fraction.trim_end_matches('0'));
        }
        return number + units[unit];
    }
}

/// Prints a duration as in tables of containers (`Up 3 weeks`): one number, rounded down.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Docker rounds hours, and only them.
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// Prints how long ago something was, as in tables of images (`2 weeks ago`). What is yet to come was just now.
pub fn human_ago(then: SystemTime, now: SystemTime) -> String {
    format!("{} ago", human_duration(now.duration_since(then).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32 << 10),
            ("32K", 32 << 10),
            ("32kb", 32 << 10),
            ("32KiB", 32 << 10),
            ("32 mb", 32 << 20),
            ("1.5g", 3 << 29),
            (".5k", 512),
            ("1t", 1 << 40),
            ("7p", 7 << 50),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in
            ["", "m", "-1", "+1", "1x", "1 ", " 1", "1  k", "1.2.3", "1e3", "0x10", "1kk", "1i", "9999999p", "１", "."]
        {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn processors_are_counted_in_billionths() {
        for (text, nanos) in [("1", NANOS), ("1.5", NANOS * 3 / 2), (".01", NANOS / 100), ("0.000000001", 1)] {
            assert_eq!(parse_cpus(text).unwrap(), nanos, "{text}");
        }
        for text in ["", ".", "-1", "1,5", "0.0000000001", "1k", "99999999999999"] {
            assert!(parse_cpus(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_are_read() {
        let rows = [
            ("0", 0),
            ("0s", 0),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1h30m5.25s", 5_405_250),
            ("1.5s", 1_500),
            (".5s", 500),
            ("300ms", 300),
            ("1000000ns", 1),
            ("1000us", 1),
            ("1000µs", 1),
            ("1s1s", 2_000),
        ];
        for (text, milliseconds) in rows {
            assert_eq!(parse_duration(text).ok(), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "1x",
            "-1s",
            "1d",
            "1s 1s",
            "1.2.3s",
            ".s",
            "s1",
            "0m0",
            "9999999999h",
            "99999999999999999999s",
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.report().starts_with(&format!("duration {text:?}: ")), "{error:?}");
        }
    }

    #[test]
    fn sizes_are_printed_as_docker_does() {
        let rows = [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1000B"),
            (1024, "1.02kB", "1KiB"),
            (999_499, "999kB", "976.1KiB"),
            (999_999, "1MB", "976.6KiB"),
            (1_048_575, "1.05MB", "1MiB"),
            (77_800_000, "77.8MB", "74.2MiB"),
            (1_090_000_000, "1.09GB", "1.015GiB"),
            (u64::MAX, "18.4EB", "16EiB"),
        ];
        for (bytes, decimal, binary) in rows {
            assert_eq!((&human_size(bytes)[..], &binary_size(bytes)[..]), (decimal, binary), "{bytes}");
        }
    }

    #[test]
    fn durations_are_printed_as_docker_does() {
        const DAY: u64 = 24 * 3600;
        let rows = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (3600 + 1800, "2 hours"),
            (2 * DAY - 1801, "47 hours"),
            (2 * DAY, "2 days"),
            (14 * DAY, "2 weeks"),
            (60 * DAY, "2 months"),
            (2 * 365 * DAY, "2 years"),
        ];
        for (seconds, text) in rows {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn times_are_printed_as_ages() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
        for (seconds, text) in [
            (0, "Less than a second ago"),
            (90, "About a minute ago"),
            (14 * 86_400, "2 weeks ago"),
            (1 << 30, "34 years ago"),
        ] {
            assert_eq!(human_ago(now - Duration::from_secs(seconds), now), text, "{seconds}");
        }
        assert_eq!(human_ago(now + Duration::from_secs(9), now), "Less than a second ago");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,12}|[0-9.]{0,24}[a-zA-Z ]{0,3}") {
            let _ = (parse_size(&text), parse_duration(&text));
        }

        #[test]
        fn what_is_printed_is_near_what_was_meant(bytes in any::<u64>()) {
            let printed = binary_size(bytes);
            if let Ok(read) = parse_size(&printed) {
                prop_assert!(read.abs_diff(bytes) <= bytes / 1000, "{bytes} is printed as {printed}");
            }
            prop_assert!(human_size(bytes).len() <= 6, "{}", human_size(bytes));
        }
    }
}
