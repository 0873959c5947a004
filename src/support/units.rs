//! Sizes and processor counts as people type them.

use crate::error::{Error, Result};

/// Billionths of a processor in one.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
