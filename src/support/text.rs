//! Values that stand in documents as they are typed: written with `Display`, read with `FromStr`.
//!
//! A value that was checked when it was typed is checked again when it is read, by the same code.

/// Serialises a type as its text, and parses that when reading.
macro_rules! serialise_as_text {
    ($($type:ty),+ $(,)?) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(|error: $crate::error::Error| serde::de::Error::custom(error.report()))
            }
        }
    )+};
}

pub(crate) use serialise_as_text;
