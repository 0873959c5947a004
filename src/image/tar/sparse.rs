//! Sparse files: GNU's own headers, and the three forms GNU tar has written in PAX records (0.0, 0.1, 1.0).
//!
//! A map is taken only if it is in order, inside the file, and accounts for every byte that is stored.

use crate::error::{Error, Result};
use crate::image::limits;

use super::BLOCK;
use super::header;
use super::pax::decimal;

/// A run of stored bytes; between runs are holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The `GNU.sparse.` records of an entry.
#[derive(Default)]
pub(super) struct Pax {
    major: Option<u64>,
    minor: Option<u64>,
    /// What the file is called; the header holds a made-up name.
    pub(super) name: Option<Vec<u8>>,
    real_size: Option<u64>,
    count: Option<u64>,
    numbers: Vec<u64>,
    has_map: bool,
}

/// Takes one record in.
pub(super) fn record(pax: &mut Pax, name: &[u8], value: &[u8]) -> Option<()> {
    match name {
        b"major" => pax.major = Some(decimal(value)?),
        b"minor" => pax.minor = Some(decimal(value)?),
        b"name" => {
            if value.is_empty() || value.contains(&0) || value.len() > limits::PATH_BYTES {
                return None;
            }
            pax.name = Some(value.to_vec());
        }
        b"size" | b"realsize" => pax.real_size = Some(decimal(value)?),
        b"numblocks" => pax.count = Some(decimal(value)?),
        // Version 0.0 repeats these two, against PAX's rule that the last wins.
        b"offset" if pax.numbers.len().is_multiple_of(2) && !pax.has_map => pax.numbers.push(decimal(value)?),
        b"numbytes" if !pax.numbers.len().is_multiple_of(2) => pax.numbers.push(decimal(value)?),
        b"map" if pax.numbers.is_empty() && !pax.has_map => {
            pax.has_map = true;
            if !value.is_empty() {
                for number in value.split(|byte| *byte == b',') {
                    pax.numbers.push(decimal(number)?);
                }
            }
        }
        // Nothing else is defined, and what it would mean cannot be guessed.
        _ => return None,
    }
    (pax.numbers.len() <= 2 * limits::SPARSE_SEGMENTS).then_some(())
}

/// What the records come to.
pub(super) enum Form {
    /// An ordinary file.
    Whole,
    /// The map is in the records: versions 0.0 and 0.1.
    Records { real_size: u64, segments: Vec<Segment> },
    /// The map stands before the data: version 1.0.
    Data { real_size: u64 },
}

impl Pax {
    pub(super) fn is_empty(&self) -> bool {
        self.major.is_none()
            && self.minor.is_none()
            && self.name.is_none()
            && self.real_size.is_none()
            && self.count.is_none()
            && self.numbers.is_empty()
            && !self.has_map
    }

    /// Decides which form an entry has.
    pub(super) fn form(&self) -> Result<Form> {
        if self.is_empty() {
            return Ok(Form::Whole);
        }
        let real_size = self.real_size.ok_or_else(|| malformed("without a size"))?;
        let has_numbers = self.has_map || !self.numbers.is_empty();
        match (self.major, self.minor) {
            (Some(1), Some(0)) if !has_numbers && self.count.is_none() => Ok(Form::Data { real_size }),
            (None, None) | (Some(0), Some(0 | 1)) => {
                let segments = pair(&self.numbers)?;
                if self.count.is_some_and(|count| count != segments.len() as u64) {
                    return Err(malformed("with a wrong count"));
                }
                Ok(Form::Records { real_size, segments })
            }
            _ => Err(malformed("of an unknown version")),
        }
    }
}

fn pair(numbers: &[u64]) -> Result<Vec<Segment>> {
    if !numbers.len().is_multiple_of(2) {
        return Err(malformed("with half a segment"));
    }
    if numbers.len() > 2 * limits::SPARSE_SEGMENTS {
        return Err(Error::invalid(format!("limit: more than {} segments in a sparse file", limits::SPARSE_SEGMENTS)));
    }
    Ok(numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// Adds the segments of a GNU header or of one of its continuations.
pub(super) fn gnu_segments(fields: &[u8], into: &mut Vec<Segment>) -> Result<()> {
    for field in fields.chunks_exact(24) {
        if field[0] == 0 {
            break;
        }
        into.push(Segment {
            offset: header::unsigned(&field[..12], "sparse offset")?,
            length: header::unsigned(&field[12..], "sparse length")?,
        });
        if into.len() > limits::SPARSE_SEGMENTS {
            return Err(Error::invalid(format!(
                "limit: more than {} segments in a sparse file",
                limits::SPARSE_SEGMENTS
            )));
        }
    }
    Ok(())
}

/// Reads the map that stands before the data, block by block.
pub(super) fn read_map(mut next_block: impl FnMut() -> Result<[u8; BLOCK]>) -> Result<Vec<Segment>> {
    let mut numbers = Vec::new();
    let mut wanted = 1;
    let mut current: Option<u64> = None;
    while numbers.len() < wanted {
        let block = next_block()?;
        for byte in block {
            match byte {
                b'0'..=b'9' => {
                    let value = current
                        .unwrap_or(0)
                        .checked_mul(10)
                        .and_then(|value| value.checked_add(u64::from(byte - b'0')));
                    current = Some(value.ok_or_else(|| malformed("with a number too large"))?);
                }
                b'\n' => {
                    let value = current.take().ok_or_else(|| malformed("with an empty number"))?;
                    numbers.push(value);
                    if numbers.len() == 1 {
                        if value > limits::SPARSE_SEGMENTS as u64 {
                            return Err(Error::invalid(format!(
                                "limit: more than {} segments in a sparse file",
                                limits::SPARSE_SEGMENTS
                            )));
                        }
                        wanted = 1 + 2 * usize::try_from(value).unwrap_or_default();
                    }
                    if numbers.len() == wanted {
                        break;
                    }
                }
                _ => return Err(malformed("with a map that is not of numbers")),
            }
        }
    }
    pair(&numbers[1..])
}

/// Checks that a map describes `stored` bytes of a file of `real_size`.
pub(super) fn check(segments: &[Segment], stored: u64, real_size: u64) -> Result<()> {
    let (mut position, mut sum) = (0, 0_u64);
    for segment in segments {
        let end = segment.offset.checked_add(segment.length).filter(|end| *end <= real_size);
        let Some(end) = end else { return Err(malformed("with a segment beyond its end")) };
        if segment.offset < position {
            return Err(malformed("with segments out of order"));
        }
        // GNU tar fills every segment up to a block, others do not: only the last may be ragged.
        if segment.length != 0 && !sum.is_multiple_of(BLOCK as u64) {
            return Err(malformed("with a ragged segment"));
        }
        (position, sum) = (end, sum + segment.length);
    }
    if sum == stored { Ok(()) } else { Err(malformed("whose segments are not what is stored")) }
}

fn malformed(how: &str) -> Error {
    Error::invalid(format!("malformed tar: a sparse file {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(pairs: &[(u64, u64)]) -> Vec<Segment> {
        pairs.iter().map(|(offset, length)| Segment { offset: *offset, length: *length }).collect()
    }

    #[test]
    fn maps_must_account_for_everything() {
        for (pairs, stored, real_size, good) in [
            (&[(0, 512), (1024, 5)][..], 517, 2000, true),
            (&[], 0, 1 << 40, true),
            (&[(0, 512), (4096, 0)], 512, 4096, true),
            (&[(1024, 512), (0, 512)], 1024, 2000, false),
            (&[(0, 512), (511, 1)], 513, 2000, false),
            (&[(0, 5), (1024, 512)], 517, 2000, false),
            (&[(0, 512)], 511, 2000, false),
            (&[(0, 512)], 513, 2000, false),
            (&[(u64::MAX, 1)], 1, u64::MAX, false),
            (&[(1, u64::MAX)], u64::MAX, u64::MAX, false),
            (&[(1999, 2)], 2, 2000, false),
        ] {
            assert_eq!(check(&segments(pairs), stored, real_size).is_ok(), good, "{pairs:?} {stored} {real_size}");
        }
    }

    #[test]
    fn maps_before_the_data() {
        let map = |text: &[u8]| {
            let mut blocks = text.chunks(BLOCK).map(|chunk| {
                let mut block = [0; BLOCK];
                block[..chunk.len()].copy_from_slice(chunk);
                block
            });
            read_map(|| blocks.next().ok_or_else(|| Error::invalid("end")))
        };
        assert_eq!(map(b"0\n").unwrap(), vec![]);
        assert_eq!(map(b"2\n0\n512\n1024\n5\n").unwrap(), segments(&[(0, 512), (1024, 5)]));
        let many = format!("100\n{}", "1000000\n0\n".repeat(100));
        assert_eq!(map(many.as_bytes()).unwrap().len(), 100);
        for text in [&b""[..], b"1\n", b"\n", b"1\n0\n\n", b"-1\n", b"1\n0,5\n", b"70000\n", b"99999999999999999999\n"]
        {
            assert!(map(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
