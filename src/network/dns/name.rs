//! Names as messages carry them: labels with their lengths (RFC 1035, 3.1), compressed or not (4.1.4). Keeps the case that
//! was asked in, and compares without it (RFC 4343).

use std::fmt;

/// Bytes of a name, with the lengths and the empty label at its end (RFC 1035, 2.3.4).
const MOST: usize = 255;

/// Bytes of a label; above them the first two bits say what else it is.
const MOST_OF_LABEL: u8 = 63;

/// The first bits of what is no label, but the place of more of the name.
pub(super) const POINTER: u8 = 0b1100_0000;

/// A name that needs more pointers than it can have labels was written to cost time.
const POINTERS: u32 = 127;

/// A whole name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name(Box<[u8]>);

impl Name {
    /// Reads a name at a place of a message; gives where the message goes on behind it, too.
    ///
    /// A pointer leads to before the part of the name that it ends, so each step is further to the front, and there is no
    /// way to go round in a circle.
    pub(super) fn read(message: &[u8], start: usize) -> Option<(Self, usize)> {
        let mut wire = Vec::with_capacity(32);
        let (mut at, mut part, mut end, mut pointers) = (start, start, None, 0);
        loop {
            let length = *message.get(at)?;
            if length & POINTER == POINTER {
                let target = usize::from(u16::from_be_bytes([length & !POINTER, *message.get(at + 1)?]));
                end = end.or(Some(at + 2));
                pointers += 1;
                if target >= part || pointers > POINTERS {
                    return None;
                }
                (at, part) = (target, target);
                continue;
            }
            // 0b01 and 0b10 were for extensions that nobody uses (RFC 6891, 5).
            if length > MOST_OF_LABEL {
                return None;
            }
            let label = message.get(at..=at + usize::from(length))?;
            if wire.len() + label.len() > MOST {
                return None;
            }
            wire.extend_from_slice(label);
            at += label.len();
            if length == 0 {
                return Some((Self(wire.into()), end.unwrap_or(at)));
            }
        }
    }

    /// The name that a text with dots stands for; `None` where there can be no such name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.strip_suffix('.').unwrap_or(text).split('.').filter(|_| !text.is_empty() && text != ".") {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=MOST_OF_LABEL).contains(length))?;
            wire.push(length);
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        (wire.len() <= MOST).then(|| Self(wire.into()))
    }

    /// As it stands in a message that compresses nothing.
    pub(super) fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The same name in small letters: what it is known by.
    pub(super) fn folded(&self) -> Self {
        // A length is below 64, and so no letter.
        Self(self.0.to_ascii_lowercase().into())
    }

    /// Its labels, from the front, without the empty one at the end.
    pub(super) fn labels(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let mut at = 0;
        let labels: Vec<&[u8]> = std::iter::from_fn(|| {
            let length = usize::from(*self.0.get(at)?);
            let label = self.0.get(at + 1..=at + length).filter(|label| !label.is_empty())?;
            at += length + 1;
            Some(label)
        })
        .collect();
        labels.into_iter()
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Whether it is a host's: letters, digits, `-`, and in practice `_`.
    pub(super) fn is_host(&self) -> bool {
        let is_usual = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        self.labels().all(|label| label.iter().all(is_usual))
    }

    /// The names above it, from the nearest to the root.
    pub(super) fn parents(&self) -> impl Iterator<Item = Self> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let length = usize::from(*rest.first()?);
            rest = rest.get(length + 1..).filter(|rest| !rest.is_empty())?;
            Some(Self(rest.into()))
        })
    }

    /// What is left of a folded name without the labels of another, folded one at its end; `None` where it does not end so,
    /// or has nothing before.
    pub(super) fn without(&self, suffix: &Self) -> Option<Self> {
        let front = self.0.len().checked_sub(suffix.0.len()).filter(|front| *front > 0)?;
        if self.0.get(front..)? != suffix.wire() || !self.starts_label(front) {
            return None;
        }
        let mut wire = self.0.get(..front)?.to_vec();
        wire.push(0);
        Some(Self(wire.into()))
    }

    /// Whether a label begins so many bytes from the front.
    fn starts_label(&self, place: usize) -> bool {
        let mut at = 0;
        while at < place {
            at += 1 + self.0.get(at).map_or(MOST, |length| usize::from(*length));
        }
        at == place
    }
}

/// For people and for policies: with `\` before what is no letter, digit, `-` or `_` (RFC 1035, 5.1), and without the dot at
/// the end.
impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for label in self.labels() {
            formatter.write_str(separator)?;
            separator = ".";
            for byte in label {
                match byte {
                    b'-' | b'_' => write!(formatter, "{}", char::from(*byte))?,
                    byte if byte.is_ascii_alphanumeric() => write!(formatter, "{}", char::from(*byte))?,
                    byte if byte.is_ascii_graphic() => write!(formatter, "\\{}", char::from(*byte))?,
                    byte => write!(formatter, "\\{byte:03}")?,
                }
            }
        }
        if separator.is_empty() { formatter.write_str(".") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn names_are_read_wherever_their_parts_are() {
        // "b.c" at 0, "a." and a pointer to it at 5, a pointer to that at 9.
        let message = b"\x01b\x01c\0\x01a\xc0\x00\xc0\x05!";
        assert_eq!(Name::read(message, 0), Some((name("b.c"), 5)));
        assert_eq!(Name::read(message, 5), Some((name("a.b.c"), 9)));
        assert_eq!(Name::read(message, 9), Some((name("a.b.c"), 11)));
        for (what, message) in [
            ("nothing", &b""[..]),
            ("no end", b"\x01a"),
            ("half a label", b"\x05a"),
            ("half a pointer", b"\x01a\xc0"),
            ("to itself", b"\xc0\x00"),
            ("to its own beginning", b"\x01a\xc0\x00"),
            ("forward", b"\xc0\x02\x01a\0"),
            ("a label of another kind", b"\x41a\0"),
            ("a label of yet another kind", b"\x81a\0"),
        ] {
            assert_eq!(Name::read(message, 0), None, "{what}");
        }
        let chain: Vec<u8> =
            (0..200_u16).flat_map(|step| (0xc000 + step.saturating_sub(1) * 2).to_be_bytes()).collect();
        let chain = [b"\x00\x00", &chain[2..]].concat();
        assert!(Name::read(&chain, 2 * 127).is_some());
        assert_eq!(Name::read(&chain, 2 * 128), None);
        let long = [&[63; 64][..], &[63; 64], &[63; 64], &[61; 62], &[0]].concat();
        assert_eq!(Name::read(&long, 0).unwrap().0.wire().len(), 255);
        let longer = [&long[..192], &[62; 63], &[0]].concat();
        assert_eq!(Name::read(&longer, 0), None, "256 bytes");
    }

    #[test]
    fn names_are_texts() {
        assert_eq!(name("Web.Net."), name("Web.Net"));
        assert_eq!(name("Web.Net").folded(), name("web.net"));
        assert_eq!(name("_a-1.b").to_string(), "_a-1.b");
        assert_eq!(Name::read(b"\x03a.\x07\0", 0).unwrap().0.to_string(), "a\\.\\007");
        assert_eq!((name(".").to_string(), name("").wire()), (".".to_owned(), &b"\0"[..]));
        for text in ["..", "a..b", ".a", &"x".repeat(64), &vec!["x".repeat(63); 4].join(".")] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
        assert_eq!(name("a.b").parents().collect::<Vec<_>>(), [name("b"), name(".")]);
        assert_eq!(name(".").parents().count(), 0);
        assert_eq!(name("a.b.c").labels().rev().collect::<Vec<_>>(), [b"c", b"b", b"a"]);
    }

    #[test]
    fn a_suffix_is_one_of_labels() {
        assert_eq!(name("web.net").without(&name("net")), Some(name("web")));
        assert_eq!(name("a.web.net").without(&name("net")), Some(name("a.web")));
        for (of, suffix) in [("net", "net"), ("webnet", "net"), ("web.net", "web"), ("web", "long.net")] {
            assert_eq!(name(of).without(&name(suffix)), None, "{of}");
        }
        // Its last bytes are those of \x03net, and no label begins there.
        assert_eq!(Name::read(b"\x05w\x03net\0", 0).unwrap().0.without(&name("net")), None);
    }
}
