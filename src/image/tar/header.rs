//! One header block: fields at fixed places, numbers in octal or base 256.

use crate::error::{Error, Result};

use super::BLOCK;

/// A header whose checksum is right.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Before POSIX: no prefix, no device numbers.
    Old,
    Ustar,
    /// ustar with a shorter prefix and more times behind it.
    Star,
    Gnu,
}

impl<'a> Header<'a> {
    /// Checks a block's checksum.
    pub(super) fn new(block: &'a [u8; BLOCK]) -> Result<Self> {
        let stated = octal(&block[148..156]).ok_or_else(|| malformed("checksum"))?;
        // The field counts as eight spaces. Some old writers summed signed bytes.
        let others =
            || block.iter().enumerate().filter(|(place, _)| !(148..156).contains(place)).map(|(_, byte)| *byte);
        let unsigned: u64 = others().map(u64::from).sum::<u64>() + 8 * 32;
        let signed: i64 = others().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
        if stated == unsigned || i64::try_from(stated) == Ok(signed) {
            return Ok(Self(block));
        }
        Err(malformed("checksum"))
    }

    fn family(&self) -> Family {
        match (&self.0[257..263], &self.0[263..265]) {
            (b"ustar\0", _) if &self.0[508..512] == b"tar\0" => Family::Star,
            (b"ustar\0", _) => Family::Ustar,
            (b"ustar ", b" \0") => Family::Gnu,
            _ => Family::Old,
        }
    }

    pub(super) fn is_gnu(&self) -> bool {
        self.family() == Family::Gnu
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.0[156]
    }

    /// Writes the name, with its prefix where there is one.
    pub(super) fn name(&self, into: &mut Vec<u8>) {
        into.clear();
        let prefix = match self.family() {
            Family::Ustar => text(&self.0[345..500]),
            Family::Star => text(&self.0[345..476]),
            Family::Gnu | Family::Old => b"",
        };
        if !prefix.is_empty() {
            into.extend_from_slice(prefix);
            into.push(b'/');
        }
        into.extend_from_slice(text(&self.0[..100]));
    }

    pub(super) fn link(&self, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(text(&self.0[157..257]));
    }

    pub(super) fn size(&self) -> Result<u64> {
        unsigned(&self.0[124..136], "size")
    }

    pub(super) fn mode(&self) -> Result<u32> {
        // The type's bits are sometimes there as well; the type is said elsewhere.
        unsigned(&self.0[100..108], "mode").map(|mode| u32::try_from(mode & 0o7777).unwrap_or_default())
    }

    pub(super) fn uid(&self) -> Result<u64> {
        unsigned(&self.0[108..116], "uid")
    }

    pub(super) fn gid(&self) -> Result<u64> {
        unsigned(&self.0[116..124], "gid")
    }

    pub(super) fn mtime(&self) -> Result<i64> {
        number(&self.0[136..148]).ok_or_else(|| malformed("mtime"))
    }

    /// Gives the major and the minor number of a device node.
    pub(super) fn device(&self) -> Result<(u64, u64)> {
        if self.family() == Family::Old {
            return Err(malformed("device number"));
        }
        Ok((unsigned(&self.0[329..337], "devmajor")?, unsigned(&self.0[337..345], "devminor")?))
    }

    /// Gives the four segments of a GNU sparse header, whether more follow, and the size with holes.
    pub(super) fn sparse(&self) -> Result<(&'a [u8], bool, u64)> {
        Ok((&self.0[386..482], self.0[482] != 0, unsigned(&self.0[483..495], "realsize")?))
    }
}

pub(super) fn malformed(field: &str) -> Error {
    Error::invalid(format!("malformed tar header: {field}"))
}

/// A field ends at its first NUL, or is full.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

pub(super) fn unsigned(field: &[u8], name: &str) -> Result<u64> {
    number(field).and_then(|value| u64::try_from(value).ok()).ok_or_else(|| malformed(name))
}

/// Reads octal, or two's complement of base 256 where the highest bit is set (GNU, star).
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 == 0 {
        return octal(field).and_then(|value| i64::try_from(value).ok());
    }
    let negative = field[0] & 0x40 != 0;
    let mut value: i64 = if negative { -1 } else { 0 };
    for (place, byte) in field.iter().enumerate() {
        // The mark takes the first bit; the second is the sign, and repeats in the first's place.
        let byte = if place == 0 && !negative { byte & 0x7f } else { *byte };
        value = value.checked_mul(256)? | i64::from(byte);
    }
    Some(value)
}

/// Reads octal digits between optional spaces and NULs. An empty field is zero; anything else is refused.
fn octal(field: &[u8]) -> Option<u64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    field[start..end].iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"644\0\0\0\0\0", Some(0o644)),
            (b"77777777", Some(0o77_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"0000648\0", None),
            (b"0x00644\0", None),
            (b"-000644\0", None),
            (b"+000644\0", None),
            (b"06\x0044\0\0\0", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\x80\x7f\xff\xff\xff\xff\xff\xff", Some(0x7f_ffff_ffff_ffff)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\x00", Some(-256)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\xbf\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
