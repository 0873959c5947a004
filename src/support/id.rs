//! Identifiers and names of containers.
//!
//! A [`ContainerId`] is 64 lower-case hexadecimal digits from the kernel's random source; a [`ContainerName`] follows
//! docker's rule. Both exist only validated, so that either can stand as one component of a path. Deliberately does not
//! validate the ids that callers of the runtime verbs choose: those follow runc's rule.

use std::fmt;
use std::str::FromStr;

use rustix::rand::GetRandomFlags;

use super::text::serialise_as_text;
use crate::error::{Context, Error, Result};

/// Digits of an id.
const ID_DIGITS: usize = 64;

/// Digits that people are shown.
const SHORT_DIGITS: usize = 12;

/// `NAME_MAX` of Linux file systems: a name is a file's name in the store.
const NAME_BYTES: usize = 255;

/// The identity of a container for its whole life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId([u8; ID_DIGITS]);

impl ContainerId {
    /// Makes an id that nobody else has.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; ID_DIGITS / 2];
        fill(&mut bytes)?;
        let mut digits = [0; ID_DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        Ok(Self(digits))
    }

    /// Gives all digits.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }

    /// Gives the digits that people are shown.
    pub fn short(&self) -> &str {
        &self.as_str()[..SHORT_DIGITS]
    }
}

impl FromStr for ContainerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match <[u8; ID_DIGITS]>::try_from(text.as_bytes()) {
            Ok(digits) if is_hexadecimal(text) => Ok(Self(digits)),
            _ => Err(Error::invalid(format!("container id {text:?}: not 64 lower-case hexadecimal digits"))),
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Says whether a text could be the beginning of an id.
pub fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What people call a container: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, as docker has it, and never a whole id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(String);

impl ContainerName {
    /// Makes up a name. It may be taken: the store decides, and asks again.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 4];
        fill(&mut bytes)?;
        let [low, high, third, fourth] = bytes.map(usize::from);
        let (manner, thing) = (low | high << 8, third | fourth << 8);
        Ok(Self(format!("{}_{}", MANNERS[manner % MANNERS.len()], THINGS[thing % THINGS.len()])))
    }

    /// Gives the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = Error;

    /// Docker writes names with a slash before them, and takes them so.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.strip_prefix('/').unwrap_or(text);
        let mut bytes = text.bytes();
        let allowed = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
            && bytes.len() > 0
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if !allowed {
            return Err(Error::invalid(format!("container name {text:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ is allowed")));
        }
        if text.len() > NAME_BYTES {
            return Err(Error::invalid(format!("container name: longer than {NAME_BYTES} bytes")));
        }
        if text.len() == ID_DIGITS && is_hexadecimal(text) {
            return Err(Error::invalid(format!("container name {text:?}: has the form of an id, and would hide it")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serialise_as_text!(ContainerId);
serialise_as_text!(ContainerName);

fn fill(bytes: &mut [u8]) -> Result<()> {
    // Up to 256 bytes come whole once the pool is ready, and not even a signal cuts them short. (getrandom(2))
    let length = rustix::rand::getrandom(&mut *bytes, GetRandomFlags::empty()).context("get random bytes")?;
    if length == bytes.len() { Ok(()) } else { Err(Error::unsupported("get random bytes: came short")) }
}

const MANNERS: &[&str] = &[
    "airy", "amber", "ample", "apt", "ashen", "autumn", "awake", "basic", "bold", "brave", "breezy", "brief", "bright",
    "brisk", "broad", "busy", "calm", "careful", "cheery", "civil", "clean", "clear", "clever", "coastal", "cosy",
    "crisp", "curious", "daring", "dawning", "deft", "dewy", "eager", "early", "earnest", "easy", "even", "exact",
    "fair", "fast", "fertile", "fine", "firm", "fleet", "floral", "fond", "frank", "free", "fresh", "frosty", "frugal",
    "gentle", "glad", "golden", "good", "grand", "green", "handy", "happy", "hardy", "hazel", "hearty", "honest",
    "humble", "ideal", "jolly", "keen", "kind", "late", "leafy", "level", "light", "lively", "loyal", "lucid", "lucky",
    "lunar", "mellow", "merry", "mild", "misty", "modest", "mossy", "neat", "nimble", "noble", "novel", "open",
    "patient", "plain", "polite", "prime", "proud", "quick", "quiet", "rapid", "ready", "ripe", "robust", "rosy",
    "rural", "rustic", "sandy", "serene", "sharp", "silent", "silver", "simple", "sleek", "smooth", "snowy", "solar",
    "solid", "sound", "spare", "spry", "stable", "steady", "still", "sturdy", "subtle", "summer", "sunny", "supple",
    "swift", "tender", "thrifty", "tidy", "topaz", "tranquil", "true", "upbeat", "vast", "verdant", "vivid", "warm",
    "wild", "windy", "wise", "witty", "woody", "young", "zesty",
];

const THINGS: &[&str] = &[
    "acorn",
    "alder",
    "almond",
    "anise",
    "apple",
    "apricot",
    "ash",
    "aspen",
    "aster",
    "bamboo",
    "barley",
    "basil",
    "bay",
    "bean",
    "beech",
    "beet",
    "berry",
    "birch",
    "bloom",
    "bramble",
    "bran",
    "buckwheat",
    "bulrush",
    "burdock",
    "cactus",
    "carrot",
    "cashew",
    "cedar",
    "celery",
    "chaff",
    "cherry",
    "chestnut",
    "chicory",
    "chive",
    "citrus",
    "clove",
    "clover",
    "cocoa",
    "coconut",
    "coffee",
    "coriander",
    "corn",
    "cotton",
    "cowpea",
    "cress",
    "crocus",
    "cumin",
    "currant",
    "cypress",
    "daisy",
    "date",
    "dill",
    "durum",
    "einkorn",
    "elder",
    "elm",
    "emmer",
    "fennel",
    "fern",
    "fig",
    "fir",
    "flax",
    "fonio",
    "garlic",
    "ginger",
    "gourd",
    "grain",
    "grape",
    "grass",
    "hazelnut",
    "heather",
    "hemlock",
    "hemp",
    "hickory",
    "holly",
    "hop",
    "hull",
    "iris",
    "ivy",
    "jasmine",
    "juniper",
    "kale",
    "kernel",
    "larch",
    "laurel",
    "leek",
    "lemon",
    "lentil",
    "lichen",
    "lilac",
    "lily",
    "lime",
    "linden",
    "linseed",
    "lotus",
    "lupin",
    "maize",
    "mallow",
    "mango",
    "maple",
    "marrow",
    "meadow",
    "melon",
    "millet",
    "mint",
    "moss",
    "mulberry",
    "mustard",
    "myrtle",
    "nettle",
    "nutmeg",
    "oak",
    "oat",
    "olive",
    "onion",
    "orchid",
    "oregano",
    "palm",
    "pansy",
    "papaya",
    "parsley",
    "parsnip",
    "pea",
    "peach",
    "peanut",
    "pear",
    "pecan",
    "peony",
    "pepper",
    "pine",
    "plum",
    "pod",
    "pollen",
    "poplar",
    "poppy",
    "primrose",
    "pumpkin",
    "quince",
    "quinoa",
    "radish",
    "reed",
    "rhubarb",
    "rice",
    "rose",
    "rowan",
    "rye",
    "saffron",
    "sage",
    "sedge",
    "seed",
    "sesame",
    "sheaf",
    "shell",
    "shoot",
    "sorghum",
    "sorrel",
    "soy",
    "spelt",
    "spruce",
    "stalk",
    "stem",
    "straw",
    "sumac",
    "sunflower",
    "tansy",
    "teasel",
    "teff",
    "thistle",
    "thyme",
    "tulip",
    "turnip",
    "vetch",
    "vine",
    "violet",
    "walnut",
    "wheat",
    "willow",
    "yam",
    "yarrow",
    "yew",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_differ() {
        let (one, other) = (ContainerId::random().unwrap(), ContainerId::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.as_str().parse::<ContainerId>().unwrap(), one);
        assert_eq!(one.short(), &one.to_string()[..12]);
        let upper = "A".repeat(64);
        for wrong in ["", "abc", &upper, &"g".repeat(64), &"a".repeat(65), &"é".repeat(32)] {
            assert!(wrong.parse::<ContainerId>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_follow_dockers_rule() {
        let long = "a".repeat(255);
        for right in ["ab", "web-1", "9a", "A_b.c-", &long, &"a".repeat(63)] {
            assert_eq!(right.parse::<ContainerName>().unwrap().as_str(), right);
        }
        let too_long = "a".repeat(256);
        let id = "a".repeat(64);
        for wrong in ["", "a", ".", "..", "-a", "_a", ".a", "a/b", "../x", "a b", "a\n", "a\0b", "é1", &too_long, &id]
        {
            assert!(wrong.parse::<ContainerName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn made_up_names_are_valid() {
        for _ in 0..100 {
            let name = ContainerName::random().unwrap();
            assert_eq!(name.as_str().parse::<ContainerName>().unwrap(), name);
        }
        for words in [MANNERS, THINGS] {
            let mut seen = std::collections::HashSet::new();
            for word in words {
                assert!(seen.insert(word), "{word} stands twice");
                assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
            }
        }
    }

    #[test]
    fn reading_an_id_validates_it() {
        let id = ContainerId::random().unwrap();
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<ContainerId>(&text).unwrap(), id);
        assert!(serde_json::from_str::<ContainerId>("\"../x\"").is_err());
        assert!(serde_json::from_str::<ContainerName>("\"../x\"").is_err());
    }
}
