//! JSON in which every key stands once, and every field is known.
//!
//! What to do with a key that is there twice is each reader's own choice (RFC 8259, section 4), and where two readers judge
//! one document, as the signer and the verifier of a statement do, each could see another one. Such a document is refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Parses a document.
pub fn parse(bytes: &[u8]) -> Result<Value> {
    Ok(serde_json::from_slice::<Strict>(bytes).map_err(Error::from)?.0)
}

/// An object, of which all that is in it is to be taken out: what its reader does not know may matter.
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Opens an object; `name` is what messages call it.
    pub fn of(value: Value, name: &str) -> Result<Self> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(Error::invalid(format!("{name} is not an object"))),
        }
    }

    /// Takes a field, whatever it holds.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// Takes fields that are known and of no interest.
    pub fn skip(&mut self, keys: &[&str]) {
        for key in keys {
            self.0.remove(*key);
        }
    }

    /// Takes a string.
    pub fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::invalid(format!("{key} is not a string"))),
        }
    }

    /// Takes a string that has to be there.
    pub fn needed_text(&mut self, key: &str) -> Result<String> {
        self.text(key)?.ok_or_else(|| Error::invalid(format!("{key} is missing")))
    }

    /// Takes a list of strings.
    pub fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>> {
        let wrong = || Error::invalid(format!("{key} is not a list of strings"));
        let texts = |list: Vec<Value>| -> Result<Vec<String>> {
            list.into_iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        };
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(list)) => texts(list).map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// Takes an object.
    pub fn object(&mut self, key: &str) -> Result<Option<Map<String, Value>>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(Error::invalid(format!("{key} is not an object"))),
        }
    }

    /// Takes an object that has to be there, to be emptied in turn.
    pub fn needed_fields(&mut self, key: &str) -> Result<Self> {
        self.object(key)?.map(Self).ok_or_else(|| Error::invalid(format!("{key} is missing")))
    }

    /// Makes sure that nothing is left.
    pub fn end(self) -> Result<()> {
        match self.0.keys().next() {
            Some(key) => Err(Error::invalid(format!("unknown field {key:?}"))),
            None => Ok(()),
        }
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(serde::de::Error::custom(format!("key {key:?} is there twice")));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_key_stands_once() {
        for text in ["null", "{}", "[1,-2,2.5,\"a\",true,null,[],{\"a\":{\"a\":1},\"b\":1}]", " { \"a\" : 1 } "] {
            let plain: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text.as_bytes()).unwrap(), plain, "{text}");
        }
        for text in ["{\"a\":1,\"a\":1}", "[{\"b\":{\"a\":1,\"c\":2,\"a\":3}}]", "{\"a\":1,\"\\u0061\":2}"] {
            assert!(parse(text.as_bytes()).unwrap_err().report().contains("is there twice"), "{text}");
        }
        for text in ["", "{", "{}x", "{\"a\"}", "\"\u{1}\""] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
