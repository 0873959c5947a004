//! The keys by which a user leaves a container's terminal without ending it. Reads no terminal.

use std::str::FromStr;

use crate::error::{Error, Result};

/// What has to be typed, in a row; nothing for no such keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

impl Default for Keys {
    /// Ctrl-P, Ctrl-Q, as docker and podman have it.
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl FromStr for Keys {
    type Err = Error;

    /// Reads docker's grammar: characters and `ctrl-X` with commas between, X one of a-z @ [ \ ] ^ _; empty for none.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let keys = text.split(',').map(|key| match key.as_bytes() {
            [byte] => Some(*byte),
            _ => match key.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([byte @ (b'a'..=b'z')]) => Some(byte - b'a' + 1),
                Some([byte @ (b'@' | b'['..=b'_')]) => Some(byte - b'@'),
                _ => None,
            },
        });
        let keys: Option<Vec<u8>> = keys.collect();
        keys.map(Self).ok_or_else(|| {
            Error::invalid(format!("detach keys {text:?}: not characters or ctrl-LETTER with commas between"))
        })
    }
}

/// Looks for the keys in what is typed.
pub(super) struct Watcher {
    keys: Keys,
    /// How many of them have been typed.
    typed: usize,
}

impl Watcher {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, typed: 0 }
    }

    /// Takes what was typed; gives what of it is for the workload, and `true` once all keys were typed.
    pub(super) fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys.0;
        let mut passed = Vec::with_capacity(typed.len());
        for &byte in typed {
            if keys.get(self.typed) == Some(&byte) {
                self.typed += 1;
                if self.typed == keys.len() {
                    return (passed, true);
                }
                continue;
            }
            // They were meant for the workload after all.
            passed.extend_from_slice(&keys[..self.typed]);
            self.typed = usize::from(keys.first() == Some(&byte));
            if self.typed == 0 {
                passed.push(byte);
            } else if keys.len() == 1 {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_grammar() {
        for (text, keys) in [
            ("", &b""[..]),
            ("ctrl-p,ctrl-q", &[16, 17]),
            ("a", b"a"),
            ("ctrl-a,x,ctrl-@,ctrl-[,ctrl-_", &[1, b'x', 0, 27, 31]),
        ] {
            assert_eq!(text.parse::<Keys>().unwrap().0, keys, "{text}");
        }
        for text in ["ctrl-", "ctrl-A", "ctrl-ab", "ab", "a,,b", ",", "ctrl-1"] {
            assert!(text.parse::<Keys>().is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_found_wherever_the_reads_end() {
        let mut watcher = Watcher::new(Keys::default());
        assert_eq!(watcher.take(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(watcher.take(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(watcher.take(b"b"), (b"\x10b".to_vec(), false), "given back");
        assert_eq!(watcher.take(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(watcher.take(b"\x11rest"), (Vec::new(), true));
        let mut never = Watcher::new(Keys(Vec::new()));
        assert_eq!(never.take(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
        let mut single = Watcher::new("q".parse().unwrap());
        assert_eq!(single.take(b"aq"), (b"a".to_vec(), true));
    }
}
