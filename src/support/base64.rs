//! Base64 as RFC 4648 has it, section 4: the standard alphabet, padded.

/// Writes bytes as a text in one line.
pub fn encode(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().chain([&0, &0]).take(3).fold(0, |word, byte| word << 8 | usize::from(*byte));
        for place in 0..4 {
            let is_padding = place > group.len();
            text.push(if is_padding { '=' } else { char::from(LETTERS[word >> (18 - 6 * place) & 63]) });
        }
    }
    text
}

/// Reads a text; blanks and line ends in it are passed over, anything else that is not base64 makes it none.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut letters = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    loop {
        let Some(first) = letters.next() else { return Some(bytes) };
        let (second, third, fourth) = (letters.next()?, letters.next()?, letters.next()?);
        let word = value(first)? << 18 | value(second)? << 12;
        let (word, length) = match (third, fourth) {
            (b'=', b'=') => (word, 1),
            (third, b'=') => (word | value(third)? << 6, 2),
            (third, fourth) => (word | value(third)? << 6 | value(fourth)?, 3),
        };
        let group = word.to_be_bytes();
        bytes.extend_from_slice(&group[1..=length]);
        // Bits that belong to no byte are a mistake, and nothing comes behind the padding.
        if group[1 + length..].iter().any(|byte| *byte != 0) || length < 3 && letters.next().is_some() {
            return None;
        }
    }
}

fn value(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn what_is_written_reads_back() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (&[255, 254, 253, 0], "//79AA==")]
        {
            assert_eq!((encode(bytes).as_str(), decode(text).as_deref()), (text, Some(bytes)));
        }
    }

    #[test]
    fn texts_of_the_rfc_are_read() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9v\nYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode("+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["Z", "Zg", "Zg=", "Zm9", "Zh==", "Zm9=", "Zg==Zg==", "Z===", "====", "Zm9-", "Zm9v!", "ä"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
