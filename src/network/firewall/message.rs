//! What is asked of nf_tables: tables, chains, rules, sets and what is in them. Knows no rule of husk's, and sends nothing.
//!
//! Layouts and numbers are those of linux/netfilter/nf_tables.h; types of keys are those that `nft list` shows by name.

use rustix::io::Errno;

use super::expression::{Expression, number, terminated, value};
use crate::sys::netlink::{Request, attributes, find_attribute};

/// `NFNL_SUBSYS_NFTABLES`.
pub const SUBSYSTEM: u8 = 10;

/// `NFT_MSG_*`, in the subsystem.
const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;
const NEW_SET: u8 = 9;
const NEW_ELEMENTS: u8 = 12;
const GET_ELEMENTS: u8 = 13;
const DELETE_ELEMENTS: u8 = 14;

/// `NLM_F_CREATE`, with which a table or chain that is there is taken as it is; `NLM_F_APPEND`: a rule behind the others.
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NFT_SET_INTERVAL`, `NFT_SET_MAP`, `NFT_SET_TIMEOUT`, `NFT_SET_EVAL`, `NFT_SET_CONCAT`.
const HAS_RANGES: u32 = 0x4;
const IS_MAP: u32 = 0x8;
const FORGETS: u32 = 0x10;
const IS_FILLED_BY_RULES: u32 = 0x20;
const IS_CONCATENATION: u32 = 0x80;

/// `NFT_TABLE_F_OWNER` (Linux 5.12), `NFT_TABLE_F_PERSIST` (6.9).
const IS_OWNED: u32 = 0x2;
const PERSISTS: u32 = 0x4;

/// A family of tables (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    Bridge = 7,
}

/// A table, by which all else is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    pub family: Family,
    pub name: &'a str,
}

/// Where on a packet's way a chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `NF_INET_*`, or `NF_BR_*` in a table of bridges.
    pub number: u32,
    pub priority: i32,
}

/// A type of key or value: nft's number for it, and its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    id: u32,
    length: u32,
}

impl Type {
    pub const IPV4: Self = Self { id: 7, length: 4 };
    pub const IPV6: Self = Self { id: 8, length: 16 };
    pub const ETHERNET: Self = Self { id: 9, length: 6 };
    pub const PROTOCOL: Self = Self { id: 12, length: 1 };
    pub const PORT: Self = Self { id: 13, length: 2 };
    pub const INTERFACE: Self = Self { id: 41, length: 16 };

    /// A field of a concatenation takes whole words.
    const fn padded(self) -> u32 {
        self.length.next_multiple_of(4)
    }
}

/// A set, or with values a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    pub key: &'static [Type],
    pub value: &'static [Type],
}

/// What a set can do besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Plain,
    /// Its keys are ranges: of each field, from the one to the other (Linux 5.6, for keys of several fields).
    Ranges,
    /// What is in it may have a life, and there is room for so many.
    Forgets(u32),
    /// The same, and rules put it there.
    Noted(u32),
}

/// An element with an end: of its range, or of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Vec<u8>,
    /// The last key of a range.
    pub last: Option<Vec<u8>>,
    /// Milliseconds.
    pub life: Option<u64>,
}

/// What is in a set: a key of its fields, and in a map the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// Joins fields to a key or a value: each padded to whole words, unless there is but one.
pub fn fields(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(field);
        if fields.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

/// The name of an interface as keys have it; EMSGSIZE where it is too long for one.
pub fn interface(name: &str) -> Result<[u8; 16], Errno> {
    let mut bytes = [0; 16];
    // The last byte ends it.
    bytes[..15].get_mut(..name.len()).ok_or(Errno::MSGSIZE)?.copy_from_slice(name.as_bytes());
    Ok(bytes)
}

impl Table<'_> {
    /// Makes the table, unless it is there.
    pub fn create(self) -> Result<Request, Errno> {
        self.request(NEW_TABLE, CREATE).attribute(1, &terminated(self.name))
    }

    /// Makes it the sender's socket's own, which stays when that is closed; EOPNOTSUPP where the kernel knows no such tables, and
    /// where it is there and is none that nobody owns.
    pub fn own(self) -> Result<Request, Errno> {
        number(self.create()?, 2, IS_OWNED | PERSISTS)
    }

    /// Asks whether the table is there: ENOENT where it is not.
    pub fn find(self) -> Result<Request, Errno> {
        Request::act(u16::from(SUBSYSTEM) << 8 | u16::from(GET_TABLE), &[self.family as u8, 0, 0, 0])
            .attribute(1, &terminated(self.name))
    }

    /// Removes the table with all that is in it.
    pub fn delete(self) -> Result<Request, Errno> {
        self.request(DELETE_TABLE, 0).attribute(1, &terminated(self.name))
    }

    /// Makes a chain: with a hook one that packets come to by themselves, and that accepts what no rule decides.
    pub fn add_chain(self, name: &str, hook: Option<Hook>) -> Result<Request, Errno> {
        let request = self.request(NEW_CHAIN, CREATE);
        let request = request.attribute(1, &terminated(self.name))?.attribute(3, &terminated(name))?;
        let Some(hook) = hook else { return Ok(request) };
        number(request, 5, 1)?
            .nested(4, |data| number(number(data, 1, hook.number)?, 2, hook.priority.cast_unsigned()))?
            .attribute(7, &terminated(hook.kind))
    }

    /// Puts a rule behind those of a chain.
    pub fn add_rule(self, chain: &str, expressions: &[Expression<'_>]) -> Result<Request, Errno> {
        self.request(NEW_RULE, CREATE | APPEND)
            .attribute(1, &terminated(self.name))?
            .attribute(2, &terminated(chain))?
            .nested(4, |list| expressions.iter().try_fold(list, |list, expression| expression.write(list)))
    }

    /// Asks for all rules of the table; kernels before 4.20 tell of those of others as well.
    pub fn list_rules(self) -> Result<Request, Errno> {
        Request::dump(u16::from(SUBSYSTEM) << 8 | u16::from(GET_RULE), &[self.family as u8, 0, 0, 0])
            .attribute(1, &terminated(self.name))
    }

    /// The chain that a rule of such a list is in, with the zero behind its name, if it is one of this table.
    pub fn chain_of(self, object: &[u8]) -> Option<&[u8]> {
        let (_, attributes) = object.split_at_checked(4)?;
        let is_of_table = find_attribute(attributes, 1)? == terminated(self.name);
        is_of_table.then(|| find_attribute(attributes, 2))?
    }

    /// Makes a set. `id` tells it from the others of the transaction.
    pub fn add_set(self, set: Set, id: u32) -> Result<Request, Errno> {
        self.add_set_of(set, Manner::Plain, id)
    }

    /// The same, of a set that can do more.
    pub fn add_set_of(self, set: Set, manner: Manner, id: u32) -> Result<Request, Errno> {
        let is_map = !set.value.is_empty();
        let is_concatenation = set.key.len() > 1;
        let (more, most) = match manner {
            Manner::Plain => (0, None),
            Manner::Ranges => (HAS_RANGES, None),
            Manner::Forgets(most) => (FORGETS, Some(most)),
            Manner::Noted(most) => (FORGETS | IS_FILLED_BY_RULES, Some(most)),
        };
        let flags = more | (u32::from(is_map) * IS_MAP) | (u32::from(is_concatenation) * IS_CONCATENATION);
        let mut request = self.request(NEW_SET, CREATE);
        request = request.attribute(1, &terminated(self.name))?.attribute(2, &terminated(set.name))?;
        let (kind, length) = shape(set.key);
        request = number(number(number(request, 3, flags)?, 4, kind)?, 5, length)?;
        if is_map {
            let (kind, length) = shape(set.value);
            request = number(number(request, 6, kind)?, 7, length)?;
        }
        if is_concatenation || most.is_some() {
            let field = |list: Request, field: &Type| list.nested(1, |field_data| number(field_data, 1, field.length));
            request = request.nested(9, |mut description| {
                if let Some(most) = most {
                    description = number(description, 1, most)?;
                }
                if is_concatenation {
                    description = description.nested(2, |list| set.key.iter().try_fold(list, field))?;
                }
                Ok(description)
            })?;
        }
        number(request, 10, id)
    }

    /// Puts elements into a set.
    pub fn add_elements(self, set: &str, elements: &[Element]) -> Result<Request, Errno> {
        self.elements(NEW_ELEMENTS, CREATE, set, elements)
    }

    /// Asks whether an element is in a set: ENOENT where it is not, and where there is no set.
    pub fn find_element(self, set: &str, key: &[u8]) -> Result<Request, Errno> {
        Request::act(u16::from(SUBSYSTEM) << 8 | u16::from(GET_ELEMENTS), &[self.family as u8, 0, 0, 0])
            .attribute(1, &terminated(self.name))?
            .attribute(2, &terminated(set))?
            .nested(3, |list| list.nested(1, |data| value(data, 1, key)))
    }

    /// Puts entries into a set.
    pub fn add_entries(self, set: &str, entries: &[Entry]) -> Result<Request, Errno> {
        self.entries(NEW_ELEMENTS, CREATE, set, entries)
    }

    /// Takes entries out of a set.
    pub fn delete_entries(self, set: &str, entries: &[Entry]) -> Result<Request, Errno> {
        self.entries(DELETE_ELEMENTS, 0, set, entries)
    }

    fn entries(self, kind: u8, flags: u16, set: &str, entries: &[Entry]) -> Result<Request, Errno> {
        self.request(kind, flags).attribute(1, &terminated(self.name))?.attribute(2, &terminated(set))?.nested(
            3,
            |list| {
                entries.iter().try_fold(list, |list, entry| {
                    list.nested(1, |data| {
                        let mut data = value(data, 1, &entry.key)?;
                        if let Some(life) = entry.life {
                            data = data.attribute(4, &life.to_be_bytes())?;
                        }
                        match &entry.last {
                            Some(last) => value(data, 10, last),
                            None => Ok(data),
                        }
                    })
                })
            },
        )
    }

    /// Asks for all that is in a set; [`read_entries`] reads the answers.
    pub fn list_elements(self, set: &str) -> Result<Request, Errno> {
        Request::dump(u16::from(SUBSYSTEM) << 8 | u16::from(GET_ELEMENTS), &[self.family as u8, 0, 0, 0])
            .attribute(1, &terminated(self.name))?
            .attribute(2, &terminated(set))
    }

    /// Takes elements out of a set.
    pub fn delete_elements(self, set: &str, elements: &[Element]) -> Result<Request, Errno> {
        self.elements(DELETE_ELEMENTS, 0, set, elements)
    }

    fn elements(self, kind: u8, flags: u16, set: &str, elements: &[Element]) -> Result<Request, Errno> {
        self.request(kind, flags).attribute(1, &terminated(self.name))?.attribute(2, &terminated(set))?.nested(
            3,
            |list| {
                elements.iter().try_fold(list, |list, element| {
                    list.nested(1, |data| {
                        let data = value(data, 1, &element.key)?;
                        match &element.value {
                            Some(bytes) => value(data, 2, bytes),
                            None => Ok(data),
                        }
                    })
                })
            },
        )
    }

    fn request(self, kind: u8, flags: u16) -> Request {
        // `nfgenmsg`: the family, version 0, no resource.
        let body = [self.family as u8, 0, 0, 0];
        Request::in_batch(u16::from(SUBSYSTEM) << 8 | u16::from(kind), &body).with_flags(flags)
    }
}

/// Reads a part of a set's elements, with the life that is left to each.
pub fn read_entries(body: &[u8]) -> Vec<Entry> {
    let bytes =
        |element, kind| find_attribute(element, kind).and_then(|data| find_attribute(data, 1)).map(<[u8]>::to_vec);
    let number = |element, kind| Some(u64::from_be_bytes(find_attribute(element, kind)?.try_into().ok()?));
    let list = body.get(4..).and_then(|attributes| find_attribute(attributes, 3)).unwrap_or_default();
    let elements = attributes(list).filter(|(kind, _)| *kind == 1);
    let entry =
        |(_, element)| Some(Entry { key: bytes(element, 1)?, last: bytes(element, 10), life: number(element, 5) });
    elements.filter_map(entry).collect()
}

/// nft's type of a key, six bits a field, and its length.
fn shape(types: &[Type]) -> (u32, u32) {
    match types {
        [one] => (one.id, one.length),
        many => many.iter().fold((0, 0), |(id, length), kind| (id << 6 | kind.id, length + kind.padded())),
    }
}
