//! The few forms of protocol buffers that CRIU's service speaks: numbers, strings and messages, each with its field.
//!
//! Knows nothing of what the fields mean. <https://protobuf.dev/programming-guides/encoding/>

/// A message that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH: u64 = 2;
const FOUR_BYTES: u64 = 5;

impl Message {
    /// Adds a number; negative ones take ten bytes, as the format has it.
    pub(super) fn number(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3 | VARINT);
        self.varint(value.cast_unsigned());
        self
    }

    /// Adds a flag. One that is off is left out: off is what CRIU takes for granted.
    pub(super) fn flag(self, field: u64, value: bool) -> Self {
        if value { self.number(field, 1) } else { self }
    }

    /// Adds text or a path.
    pub(super) fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.varint(field << 3 | LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds a message.
    pub(super) fn message(self, field: u64, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    /// Gives the message as it goes over the socket.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                return self.0.push(low);
            }
            self.0.push(low | 0x80);
        }
    }
}

/// A field that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads the fields of a message in order; ends at the first that is malformed, and `None` says so.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            VARINT => Value::Number(self.varint()?),
            LENGTH => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            EIGHT_BYTES => Value::Bytes(self.take(8)?),
            FOUR_BYTES => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_the_format_has_it() {
        let inner = Message::default().number(1, 150).flag(2, false);
        let message = Message::default().message(3, &inner).bytes(2, "testing").number(49, -1).flag(4, true);
        let expected = [
            &[0x1a, 3, 0x08, 0x96, 0x01][..],
            b"\x12\x07testing",
            &[0x88, 0x03, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x20, 1],
        ]
        .concat();
        assert_eq!(message.encoded(), expected);
    }

    #[test]
    fn what_was_written_is_read() {
        let message = Message::default().number(7, -4).bytes(9, "why").message(5, &Message::default().number(1, 300));
        let fields: Vec<_> = Fields::of(message.encoded()).collect();
        assert_eq!(fields[0], Some((7, Value::Number((-4_i64).cast_unsigned()))));
        assert_eq!(fields[1], Some((9, Value::Bytes(b"why"))));
        assert!(matches!(fields[2], Some((5, Value::Bytes(inner)))
            if Fields::of(inner).next() == Some(Some((1, Value::Number(300))))));
    }

    #[test]
    fn a_malformed_message_ends() {
        for bytes in [&[0x80][..], &[0x12, 5, 1], &[0x0b], &[0x08], &[0xff; 12], &[0x12, 0xff, 0xff, 0xff, 0xff, 0x7f]]
        {
            let fields: Vec<_> = Fields::of(bytes).collect();
            assert_eq!(fields.last(), Some(&None), "{bytes:?}");
        }
    }
}
