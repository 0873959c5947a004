//! Digests: the names of content, and the reader that proves that content deserves its name.
//!
//! A [`Digest`] can only be had by parsing or by hashing, so a value of it is safe as a part of a path: one of two
//! algorithms, lower-case hexadecimal, exactly as long as the algorithm says (CVE-2024-3727 is a digest that was none).

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::Digest as _;

use crate::error::{Error, Result};

/// The algorithms of the OCI image specification that are safe to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    /// Gives the name that stands before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

const LONGEST: usize = 64;

/// The digest of some content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; LONGEST],
}

impl Digest {
    /// Hashes bytes that are at hand.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Says how the content was hashed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Gives the part behind the colon.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(2 * LONGEST);
        for byte in &self.bytes[..self.algorithm.length()] {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }

    fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        let mut bytes = [0; LONGEST];
        bytes[..hash.len()].copy_from_slice(hash);
        Self { algorithm, bytes }
    }

    fn from_hex(algorithm: Algorithm, hex: &str) -> Option<Self> {
        fn digit(letter: u8) -> Option<u8> {
            match letter {
                b'0'..=b'9' => Some(letter - b'0'),
                b'a'..=b'f' => Some(letter - b'a' + 10),
                _ => None,
            }
        }
        if hex.len() != 2 * algorithm.length() {
            return None;
        }
        let mut bytes = [0; LONGEST];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self { algorithm, bytes })
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("digest {text:?}: {why}"));
        let (name, hex) = text.split_once(':').ok_or_else(|| wrong("not of the form algorithm:hex"))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(wrong("the algorithm is neither sha256 nor sha512")),
        };
        Self::from_hex(algorithm, hex).ok_or_else(|| {
            wrong(&format!("{name} is followed by exactly {} lower-case hexadecimal digits", 2 * algorithm.length()))
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.report()))
    }
}

/// Hashes content piece by piece.
#[derive(Clone)]
pub enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Starts a hash.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Gives the digest of everything taken in.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::from_hash(Algorithm::Sha256, &hasher.finalize()),
            Self::Sha512(hasher) => Digest::from_hash(Algorithm::Sha512, &hasher.finalize()),
        }
    }
}

/// What a blob is expected to be. A docker-archive states neither; a descriptor states both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub digest: Option<Digest>,
    pub size: Option<u64>,
}

/// Passes a blob on while it counts and hashes it. What it passed is proved only once [`Verifier::finish`] says so.
pub struct Verifier<R> {
    inner: R,
    expected: Expected,
    hasher: Option<Hasher>,
    count: u64,
}

impl<R: Read> Verifier<R> {
    /// Starts to verify what `inner` delivers.
    pub fn new(inner: R, expected: Expected) -> Self {
        let hasher = expected.digest.map(|digest| Hasher::new(digest.algorithm()));
        Self { inner, expected, hasher, count: 0 }
    }

    /// Reads what is left and compares size and digest.
    pub fn finish(mut self) -> Result<()> {
        // Bounded: a read fails as soon as the blob is longer than its descriptor says.
        io::copy(&mut self, &mut io::sink())?;
        if let Some(size) = self.expected.size
            && size != self.count
        {
            return Err(Error::invalid(format!("size mismatch: {} bytes where {size} were stated", self.count)));
        }
        match (self.expected.digest, self.hasher) {
            (Some(expected), Some(hasher)) => compare("digest", &expected, &hasher.finish()),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Verifier<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count += length as u64;
        if let Some(size) = self.expected.size
            && self.count > size
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("size mismatch: longer than the {size} bytes stated"),
            ));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..length]);
        }
        Ok(length)
    }
}

/// Fails where content turns out to be other than its name.
pub(crate) fn compare(what: &str, expected: &Digest, found: &Digest) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::invalid(format!("{what} mismatch: the content is {found}, stated was {expected}")))
}

/// Proves a small blob that is in memory.
pub(crate) fn verify(bytes: &[u8], expected: Expected) -> Result<()> {
    Verifier::new(bytes, expected).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_true_digests_parse() {
        let long = "0".repeat(128);
        for text in [EMPTY, &format!("sha512:{long}")] {
            assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "sha256",
            "sha256:",
            &EMPTY[7..],
            &EMPTY[..70],
            &format!("{EMPTY}0"),
            &EMPTY.to_uppercase(),
            &EMPTY.replace("e3", "E3"),
            &EMPTY.replace("e3", "g3"),
            &EMPTY.replace("e3", "/."),
            &EMPTY.replace("sha256", "sha512"),
            &EMPTY.replace("sha256", "md5"),
            &EMPTY.replace("sha256", "../sha256"),
            &format!(" {EMPTY}"),
            &format!("sha256:sha256:{}", &EMPTY[7..]),
            &format!("sha256:{}", "é".repeat(32)),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?} parsed");
        }
    }

    #[test]
    fn a_verifier_believes_only_its_own_eyes() {
        let content = b"layer";
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Some(Digest::of(algorithm, content));
            let other = Some(Digest::of(algorithm, b"other"));
            for (name, digest, size, answer) in [
                ("true", digest, Some(5), Ok(())),
                ("unstated", None, None, Ok(())),
                ("too short", digest, Some(6), Err("size mismatch: 5 bytes where 6 were stated")),
                ("too long", digest, Some(4), Err("size mismatch: longer than the 4 bytes stated")),
                ("other content", other, Some(5), Err("digest mismatch: ")),
            ] {
                let found = verify(content, Expected { digest, size }).map_err(|error| error.report());
                match answer {
                    Ok(()) => assert_eq!(found, Ok(()), "{name}"),
                    Err(text) => {
                        assert!(found.clone().is_err_and(|found| found.starts_with(text)), "{name}: {found:?}");
                    }
                }
            }
        }
    }
}
