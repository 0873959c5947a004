//! PAX extended headers: records of `length key=value\n` that override fields of the entry behind them.
//!
//! Each record's length must fit to the byte; a key that counts must parse. Global headers are taken only where they say
//! nothing that some reader would apply: the others ignore them, or do not.

use crate::error::{Error, Result};
use crate::image::limits;

use super::reader::{Time, Xattr};
use super::sparse::{self, Pax as Sparse};

/// What an extended header says about one entry.
#[derive(Default)]
pub(super) struct Overrides {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Sparse,
}

/// Reads a header that holds for one entry.
pub(super) fn parse(records: &[u8]) -> Result<Overrides> {
    let mut all = Overrides::default();
    for_each(records, |key, value| {
        let decimal =
            || if value.is_empty() { Ok(None) } else { decimal(value).map(Some).ok_or_else(|| malformed(key)) };
        match key {
            b"path" => all.path = text(key, value)?,
            b"linkpath" => all.link = text(key, value)?,
            b"size" => all.size = decimal()?,
            b"uid" => all.uid = decimal()?,
            b"gid" => all.gid = decimal()?,
            b"mtime" if value.is_empty() => all.mtime = None,
            b"mtime" => all.mtime = Some(time(value).ok_or_else(|| malformed(key))?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    set_xattr(&mut all.xattrs, name, value)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    sparse::record(&mut all.sparse, name, value).ok_or_else(|| malformed(key))?;
                }
            }
        }
        Ok(())
    })?;
    Ok(all)
}

/// Checks a header that holds for all entries behind it.
pub(super) fn check_global(records: &[u8]) -> Result<()> {
    for_each(records, |key, _| {
        let counts = matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"uname" | b"gname" | b"mtime")
            || [&b"SCHILY."[..], b"GNU.", b"LIBARCHIVE."].iter().any(|start| key.starts_with(start));
        if counts {
            return Err(Error::invalid(format!(
                "malformed tar: a global extended header sets {}",
                String::from_utf8_lossy(key).escape_debug()
            )));
        }
        Ok(())
    })
}

fn for_each(mut records: &[u8], mut take: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    while !records.is_empty() {
        let (key, value, rest) = split(records)
            .ok_or_else(|| Error::invalid("malformed tar: an extended header's record does not fit its length"))?;
        take(key, value)?;
        records = rest;
    }
    Ok(())
}

/// Takes the first record off.
fn split(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, &records[length..]))
}

/// An empty value takes an override back.
fn text(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>> {
    if value.contains(&0) {
        return Err(malformed(key));
    }
    if value.len() > limits::PATH_BYTES {
        return Err(Error::invalid(format!("limit: a name is longer than {} bytes", limits::PATH_BYTES)));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn set_xattr(xattrs: &mut Vec<Xattr>, name: &[u8], value: &[u8]) -> Result<()> {
    // XATTR_NAME_MAX; the last of several wins, as in the other readers.
    if name.is_empty() || name.len() > 255 {
        return Err(Error::invalid("malformed tar: the name of an extended attribute is empty or too long"));
    }
    if value.len() > limits::XATTR_BYTES {
        return Err(Error::invalid(format!(
            "limit: an extended attribute is longer than {} bytes",
            limits::XATTR_BYTES
        )));
    }
    xattrs.retain(|known| known.name != name);
    xattrs.push(Xattr { name: name.to_vec(), value: value.to_vec() });
    Ok(())
}

/// Reads decimal digits, nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Reads seconds with a sign and a fraction; digits beyond the nanosecond are cut off.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanoseconds = 0;
    for place in 0..9 {
        nanoseconds = nanoseconds * 10 + decimal(&[*fraction.get(place).unwrap_or(&b'0')])?;
    }
    fraction.iter().all(u8::is_ascii_digit).then_some(())?;
    match (negative, nanoseconds) {
        (false, _) => Some(Time { seconds, nanoseconds }),
        (true, 0) => Some(Time { seconds: -seconds, nanoseconds }),
        (true, _) => Some(Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds }),
    }
}

fn malformed(key: &[u8]) -> Error {
    Error::invalid(format!("malformed tar: extended header {}", String::from_utf8_lossy(key).escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_fit_to_the_byte() {
        for (records, path) in [
            (&b"10 path=a\n"[..], Some(&b"a"[..])),
            (b"12 path=a\nb\n", Some(b"a\nb")),
            (b"10 path=a\n10 path=b\n", Some(b"b")),
            (b"10 path=a\n8 path=\n", None),
            (b"11 path=a=\n", Some(b"a=")),
            (b"", None),
        ] {
            let found = parse(records).map(|all| all.path).unwrap();
            assert_eq!(found.as_deref(), path, "{}", records.escape_ascii());
        }
        for records in [
            &b"8 path=a\n"[..],
            b"11 path=a\n",
            b"10 path=a",
            b"10path=a\n",
            b"-1 path=a\n",
            b"+10 path=a\n",
            b" 10 path=a\n",
            b"0 \n",
            b"4 =\n",
            b"6 path\n",
            b"10 path=a\n\0",
            b"99999999999999999999 path=a\n",
            b"10 path=\0\n",
            b"11 size=-1\n",
            b"12 size=0x1\n",
            b"11 size=1 \n",
            b"29 size=18446744073709551616\n",
            b"10 uid=a1\n",
            b"12 mtime=1e\n",
            b"18 GNU.sparse.x\n",
            b"23 GNU.sparse.major=x\n",
        ] {
            assert!(parse(records).is_err(), "{}", records.escape_ascii());
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("1", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.0000000019", Some((1, 1))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-3", Some((-3, 0))),
            (".5", None),
            ("1.x", None),
            ("1.00000000000x", None),
            ("--1", None),
            ("9223372036854775808", None),
        ] {
            let found = time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn global_headers_may_only_comment() {
        assert!(check_global(b"13 comment=x\n").is_ok());
        for records in [&b"10 path=a\n"[..], b"10 size=1\n", b"21 SCHILY.xattr.a=bc\n", b"3 x\n"] {
            assert!(check_global(records).is_err(), "{}", records.escape_ascii());
        }
    }
}
