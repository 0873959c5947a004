//! D-Bus messages as bytes: what systemd's manager takes and answers (D-Bus Specification, "Type System" and "Message
//! Protocol").
//!
//! Pure. Little-endian alone: both ends are on one machine, and those that husk is built for are. Knows no methods.

use crate::error::{Error, Result};

/// Longer messages are refused: the manager's answers have hundreds of bytes.
pub(super) const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// The fixed part of a message's header.
pub(super) const PREAMBLE_BYTES: usize = 16;

/// Containers in containers; the specification allows 64.
const DEPTH_LIMIT: usize = 16;

/// A value of any type that we write or read.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cgroups) enum Value {
    Bool(bool),
    Byte(u8),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// The signature of its elements, then they; an empty one has a type too.
    Array(String, Vec<Value>),
    Tuple(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    #[cfg(test)]
    pub(super) fn texts(texts: impl IntoIterator<Item = String>) -> Self {
        Self::Array("s".into(), texts.into_iter().map(Self::Text).collect())
    }

    pub(super) fn bytes(bytes: impl IntoIterator<Item = u8>) -> Self {
        Self::Array("y".into(), bytes.into_iter().map(Self::Byte).collect())
    }

    /// A list of named values, `a(sv)`.
    pub(super) fn properties<'a>(properties: impl IntoIterator<Item = &'a (String, Self)>) -> Self {
        let tuple =
            |(name, value): &(String, Self)| Self::Tuple(vec![Self::text(name), Self::Variant(value.clone().into())]);
        Self::Array("(sv)".into(), properties.into_iter().map(tuple).collect())
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            Self::Variant(value) => value.as_text(),
            _ => None,
        }
    }

    pub(super) fn signature(&self) -> String {
        match self {
            Self::Bool(_) => "b".into(),
            Self::Byte(_) => "y".into(),
            Self::Int16(_) => "n".into(),
            Self::Uint16(_) => "q".into(),
            Self::Int32(_) => "i".into(),
            Self::Uint32(_) => "u".into(),
            Self::Int64(_) => "x".into(),
            Self::Uint64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::Text(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Variant(_) => "v".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Tuple(fields) => format!("({})", fields.iter().map(Self::signature).collect::<String>()),
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => put(bytes, u32::from(*value).to_le_bytes()),
            Self::Byte(value) => bytes.push(*value),
            Self::Int16(value) => put(bytes, value.to_le_bytes()),
            Self::Uint16(value) => put(bytes, value.to_le_bytes()),
            Self::Int32(value) => put(bytes, value.to_le_bytes()),
            Self::Uint32(value) => put(bytes, value.to_le_bytes()),
            Self::Int64(value) => put(bytes, value.to_le_bytes()),
            Self::Uint64(value) => put(bytes, value.to_le_bytes()),
            Self::Double(value) => put(bytes, value.to_le_bytes()),
            Self::Text(text) | Self::Path(text) => {
                put(bytes, length(text.len()).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
                bytes.push(0);
            }
            Self::Signature(text) => write_signature(bytes, text),
            Self::Array(element, items) => {
                put(bytes, [0; 4]);
                let at = bytes.len() - 4;
                // The length does not count the padding before the first element.
                pad(bytes, alignment(element));
                let start = bytes.len();
                for item in items {
                    item.write(bytes);
                }
                let size = length(bytes.len() - start).to_le_bytes();
                bytes[at..at + 4].copy_from_slice(&size);
            }
            Self::Tuple(fields) => {
                pad(bytes, 8);
                for field in fields {
                    field.write(bytes);
                }
            }
            Self::Variant(value) => {
                write_signature(bytes, &value.signature());
                value.write(bytes);
            }
        }
    }
}

fn write_signature(bytes: &mut Vec<u8>, text: &str) {
    // The specification ends signatures at 255; ours are written in this module and have a dozen.
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

/// What is longer than the protocol can say is far beyond [`MESSAGE_LIMIT_BYTES`], which [`Call::encode`] keeps.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn put<const SIZE: usize>(bytes: &mut Vec<u8>, number: [u8; SIZE]) {
    pad(bytes, SIZE);
    bytes.extend_from_slice(&number);
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A method to be called.
pub(super) struct Call<'a> {
    /// None on a connection that has only one other end.
    pub(super) destination: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) body: &'a [Value],
}

impl Call<'_> {
    pub(super) fn encode(&self, serial: u32) -> Result<Vec<u8>> {
        let field = |code: u8, value: Value| Value::Tuple(vec![Value::Byte(code), Value::Variant(value.into())]);
        let mut fields = vec![
            field(PATH, Value::Path(self.path.into())),
            field(MEMBER, Value::text(self.member)),
            field(INTERFACE, Value::text(self.interface)),
        ];
        fields.extend(self.destination.map(|name| field(DESTINATION, Value::text(name))));
        if !self.body.is_empty() {
            let signature = self.body.iter().map(Value::signature).collect();
            fields.push(field(SIGNATURE, Value::Signature(signature)));
        }
        let mut body = Vec::new();
        for value in self.body {
            value.write(&mut body);
        }
        // Little-endian, a method call, no flags, version 1.
        let mut bytes = vec![b'l', 1, 0, 1];
        put(&mut bytes, length(body.len()).to_le_bytes());
        put(&mut bytes, serial.to_le_bytes());
        Value::Array("(yv)".into(), fields).write(&mut bytes);
        pad(&mut bytes, 8);
        bytes.append(&mut body);
        if bytes.len() > MESSAGE_LIMIT_BYTES {
            return Err(Error::invalid(format!("{}: {} bytes are too long for D-Bus", self.member, bytes.len())));
        }
        Ok(bytes)
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Answer,
    Failure,
    Signal,
}

/// A message that came in.
#[derive(Debug, PartialEq)]
pub(super) struct Incoming {
    pub(super) kind: Kind,
    /// The call that it answers.
    pub(super) answers: Option<u32>,
    pub(super) member: String,
    pub(super) error_name: String,
    pub(super) body: Vec<Value>,
}

/// Says how long a message is whose first [`PREAMBLE_BYTES`] these are.
pub(super) fn message_length(preamble: &[u8; PREAMBLE_BYTES]) -> Result<usize> {
    let number = |at: usize| u32::from_le_bytes([preamble[at], preamble[at + 1], preamble[at + 2], preamble[at + 3]]);
    if preamble[0] != b'l' || preamble[3] != 1 {
        return Err(malformed("not a little-endian message of version 1"));
    }
    let (body, fields) = (number(4) as usize, number(12) as usize);
    let length = fields.checked_next_multiple_of(8).and_then(|fields| fields.checked_add(PREAMBLE_BYTES + body));
    length.filter(|length| *length <= MESSAGE_LIMIT_BYTES).ok_or_else(|| malformed("too long"))
}

impl Incoming {
    /// Reads a whole message.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let kind = match bytes.get(1) {
            Some(1) => Kind::Call,
            Some(2) => Kind::Answer,
            Some(3) => Kind::Failure,
            Some(4) => Kind::Signal,
            _ => return Err(malformed("of no known kind")),
        };
        let mut message =
            Self { kind, answers: None, member: String::new(), error_name: String::new(), body: Vec::new() };
        let mut reader = Reader { bytes, at: 12 };
        let fields = reader.value("a(yv)", 0)?;
        let mut signature = String::new();
        let Value::Array(_, fields) = fields else { return Err(malformed("without fields")) };
        for field in fields {
            let Value::Tuple(field) = field else { continue };
            let [Value::Byte(code), Value::Variant(value)] = &field[..] else { continue };
            let text = || value.as_text().unwrap_or_default().to_owned();
            match (*code, &**value) {
                (MEMBER, _) => message.member = text(),
                (ERROR_NAME, _) => message.error_name = text(),
                (REPLY_SERIAL, Value::Uint32(serial)) => message.answers = Some(*serial),
                (SIGNATURE, _) => signature = text(),
                _ => {}
            }
        }
        reader.align(8)?;
        let mut types = &signature[..];
        // Positions in the body count from its start, which is on a multiple of eight.
        while !types.is_empty() {
            let (first, rest) = split_type(types)?;
            message.body.push(reader.value(first, 0)?);
            types = rest;
        }
        Ok(message)
    }
}

/// Reads a message for the fuzzer, and gives how many values that hold no others are in it.
#[cfg(any(test, fuzzing))]
pub fn count_values(bytes: &[u8]) -> Result<usize> {
    fn count(value: &Value) -> usize {
        match value {
            Value::Array(_, values) | Value::Tuple(values) => values.iter().map(count).sum(),
            Value::Variant(value) => count(value),
            _ => 1,
        }
    }
    if let Some(preamble) = bytes.first_chunk() {
        let length = message_length(preamble)?;
        assert!((PREAMBLE_BYTES..=MESSAGE_LIMIT_BYTES).contains(&length), "{length}");
    }
    Ok(Incoming::decode(bytes)?.body.iter().map(count).sum())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, alignment: usize) -> Result<()> {
        self.at = self.at.next_multiple_of(alignment);
        if self.at > self.bytes.len() { Err(malformed("cut short")) } else { Ok(()) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| malformed("cut short"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn number<const SIZE: usize>(&mut self) -> Result<[u8; SIZE]> {
        self.align(SIZE)?;
        self.take(SIZE)?.try_into().map_err(|_| malformed("cut short"))
    }

    fn length(&mut self) -> Result<usize> {
        Ok(u32::from_le_bytes(self.number()?) as usize)
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let bytes = self.take(length)?;
        self.take(1)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| malformed("with text that is not UTF-8"))
    }

    fn value(&mut self, signature: &str, depth: usize) -> Result<Value> {
        if depth > DEPTH_LIMIT {
            return Err(malformed("nested too deeply"));
        }
        Ok(match signature.as_bytes().first() {
            Some(b'b') => Value::Bool(u32::from_le_bytes(self.number()?) != 0),
            Some(b'y') => Value::Byte(self.take(1)?[0]),
            Some(b'n') => Value::Int16(i16::from_le_bytes(self.number()?)),
            Some(b'q') => Value::Uint16(u16::from_le_bytes(self.number()?)),
            Some(b'i') => Value::Int32(i32::from_le_bytes(self.number()?)),
            // A descriptor's index: none is ever sent to us.
            Some(b'u' | b'h') => Value::Uint32(u32::from_le_bytes(self.number()?)),
            Some(b'x') => Value::Int64(i64::from_le_bytes(self.number()?)),
            Some(b't') => Value::Uint64(u64::from_le_bytes(self.number()?)),
            Some(b'd') => Value::Double(f64::from_le_bytes(self.number()?)),
            Some(b's') => {
                let length = self.length()?;
                Value::Text(self.text(length)?)
            }
            Some(b'o') => {
                let length = self.length()?;
                Value::Path(self.text(length)?)
            }
            Some(b'g') => {
                let length = usize::from(self.take(1)?[0]);
                Value::Signature(self.text(length)?)
            }
            Some(b'v') => {
                let length = usize::from(self.take(1)?[0]);
                let inner = self.text(length)?;
                let (first, rest) = split_type(&inner)?;
                if !rest.is_empty() {
                    return Err(malformed("with a variant of several types"));
                }
                Value::Variant(self.value(first, depth + 1)?.into())
            }
            Some(b'a') => {
                let element = &signature[1..];
                let length = self.length()?;
                self.align(alignment(element))?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
                let end = end.ok_or_else(|| malformed("cut short"))?;
                let mut items = Vec::new();
                while self.at < end {
                    items.push(self.value(element, depth + 1)?);
                }
                Value::Array(element.into(), items)
            }
            Some(b'(' | b'{') => {
                self.align(8)?;
                let mut types = &signature[1..signature.len() - 1];
                let mut fields = Vec::new();
                while !types.is_empty() {
                    let (first, rest) = split_type(types)?;
                    fields.push(self.value(first, depth + 1)?);
                    types = rest;
                }
                // Of a type without fields an array could hold numbers without end.
                if fields.is_empty() {
                    return Err(malformed("with an empty tuple"));
                }
                Value::Tuple(fields)
            }
            _ => return Err(malformed("with an unknown type")),
        })
    }
}

/// Splits a signature behind its first complete type.
fn split_type(signature: &str) -> Result<(&str, &str)> {
    let mut depth = 0_u32;
    for (at, letter) in signature.bytes().enumerate() {
        match letter {
            b'(' | b'{' => depth += 1,
            b')' | b'}' => depth = depth.checked_sub(1).ok_or_else(|| malformed("with a crooked signature"))?,
            b'a' => continue,
            letter if !letter.is_ascii() => break,
            _ => {}
        }
        if depth == 0 {
            return Ok(signature.split_at(at + 1));
        }
    }
    Err(malformed("with a crooked signature"))
}

fn malformed(how: &str) -> Error {
    Error::new(crate::error::Kind::Other, format!("D-Bus: a message {how}"))
}

#[cfg(test)]
mod tests;
