//! What a rule says: expressions of nf_tables, each a step that loads, compares, looks up or decides. Knows no rule of husk's.
//!
//! Layouts and numbers are those of linux/netfilter/nf_tables.h. Numbers in attributes are in network order; what is
//! compared is as it is in the packet, or in the machine's order where the kernel loads a number of its own.

use rustix::io::Errno;

use crate::sys::netlink::Request;

type Filled = Result<Request, Errno>;

/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`, `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`.
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// Where expressions put what they load: sixteen registers of four bytes (`NFT_REG32_00`), or four of sixteen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u32);

impl Register {
    /// `NFT_REG_VERDICT`.
    const VERDICT: Self = Self(0);

    /// The register that begins at this word of the sixteen.
    pub const fn word(index: u32) -> Self {
        assert!(index < 16, "there are sixteen words");
        Self(8 + index)
    }
}

/// What of a packet's way is loaded (`NFT_META_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The ether type, in network order.
    Protocol = 1,
    /// What routing rules go by, in the machine's order.
    Mark = 3,
    IncomingName = 6,
    OutgoingName = 7,
    /// One byte: `NFPROTO_IPV4` (2) or `NFPROTO_IPV6` (10).
    Family = 15,
    /// One byte.
    Transport = 16,
    /// One byte: for whom the frame is (`PACKET_*`).
    Addressee = 19,
}

/// From where an offset into a packet counts (`NFT_PAYLOAD_*_HEADER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// What is known of the connection that a packet belongs to (`NFT_CT_*`): bits, in the machine's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    State = 0,
    Status = 2,
}

/// How a loaded value is held against another (`NFT_CMP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal = 0,
    NotEqual = 1,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    Drop,
    Accept,
    /// Goes on in this chain, and comes back.
    Jump(&'a str),
}

/// Which address an address translation changes (`NFT_NAT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    Destination = 1,
}

/// What who sent a packet hears of its end (`NFT_REJECT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody is there.
    Reset,
    /// By ICMP of the packet's family: it is not allowed.
    Prohibited,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression<'a> {
    Meta {
        key: Meta,
        into: Register,
    },
    Payload {
        header: Header,
        offset: u32,
        length: u32,
        into: Register,
    },
    Connection {
        key: Connection,
        into: Register,
    },
    /// Whether the destination is an address of this host: a type of route, in the machine's order.
    DestinationType {
        into: Register,
    },
    /// One byte: whether the packet is for a socket of this network namespace that stands for an address which is not its own
    /// (`IP_TRANSPARENT`); a rule ends here where it is for none.
    IsForStandIn {
        into: Register,
    },
    /// Puts bytes into registers.
    Load {
        value: Vec<u8>,
        into: Register,
    },
    /// Changes the packet, without its checksums.
    Write {
        header: Header,
        offset: u32,
        length: u32,
        from: Register,
    },
    /// Changes what is known of its way.
    SetMeta {
        key: Meta,
        from: Register,
    },
    Mask {
        register: Register,
        mask: Vec<u8>,
    },
    Compare {
        register: Register,
        comparison: Comparison,
        with: Vec<u8>,
    },
    /// Goes on where the set has what is in the registers; of a map, with what it has for that.
    Lookup {
        set: &'a str,
        from: Register,
        into: Option<Register>,
        is_inverted: bool,
    },
    Translate {
        kind: Translation,
        family: u32,
        address: Register,
        port: Register,
    },
    Masquerade,
    /// Goes on for so many packets a second, and a few more at first, of each that has the same in the registers. The set
    /// forgets who is quiet for so many milliseconds.
    Limit {
        set: &'a str,
        from: Register,
        each_second: u64,
        at_first: u32,
        forgotten_after: u64,
    },
    /// Hands the packet's first bytes to who listens to a group of nfnetlink_log.
    Log {
        group: u16,
        length: u32,
    },
    Refuse(Refusal),
    Count,
    Decide(Verdict<'a>),
}

impl Expression<'_> {
    /// Appends the expression to a list of them.
    pub fn write(&self, list: Request) -> Filled {
        let name = self.name();
        list.nested(ELEMENT, |element| {
            element.attribute(NAME, &terminated(name))?.nested(DATA, |data| self.write_data(data))
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Payload { .. } | Self::Write { .. } => "payload",
            Self::Connection { .. } => "ct",
            Self::DestinationType { .. } => "fib",
            Self::IsForStandIn { .. } => "socket",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Translate { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Limit { .. } => "dynset",
            Self::Log { .. } => "log",
            Self::Refuse(_) => "reject",
            Self::Count => "counter",
            Self::Decide(_) | Self::Load { .. } => "immediate",
        }
    }

    fn write_data(&self, data: Request) -> Filled {
        match self {
            Self::Meta { key, into } => number(number(data, 1, into.0)?, 2, *key as u32),
            Self::Payload { header, offset, length, into } => {
                let data = number(number(data, 1, into.0)?, 2, *header as u32)?;
                number(number(data, 3, *offset)?, 4, *length)
            }
            Self::Load { value: bytes, into } => value(number(data, 1, into.0)?, 2, bytes),
            Self::Write { header, offset, length, from } => {
                let data = number(number(data, 2, *header as u32)?, 3, *offset)?;
                number(number(data, 4, *length)?, 5, from.0)
            }
            Self::SetMeta { key, from } => number(number(data, 2, *key as u32)?, 3, from.0),
            Self::Connection { key, into } => number(number(data, 1, into.0)?, 2, *key as u32),
            Self::DestinationType { into } => {
                // NFT_FIB_RESULT_ADDRTYPE of NFTA_FIB_F_DADDR.
                number(number(number(data, 1, into.0)?, 2, 3)?, 3, 2)
            }
            // NFT_SOCKET_TRANSPARENT.
            Self::IsForStandIn { into } => number(number(data, 1, 0)?, 2, into.0),
            Self::Mask { register, mask } => {
                let length = u32::try_from(mask.len()).map_err(|_| Errno::MSGSIZE)?;
                let data = number(number(number(data, 1, register.0)?, 2, register.0)?, 3, length)?;
                value(value(data, 4, mask)?, 5, &vec![0; mask.len()])
            }
            Self::Compare { register, comparison, with } => {
                value(number(number(data, 1, register.0)?, 2, *comparison as u32)?, 3, with)
            }
            Self::Lookup { set, from, into, is_inverted } => {
                let mut data = number(data.attribute(1, &terminated(set))?, 2, from.0)?;
                if let Some(into) = into {
                    data = number(data, 3, into.0)?;
                }
                // NFT_LOOKUP_F_INV.
                number(data, 5, u32::from(*is_inverted))
            }
            Self::Translate { kind, family, address, port } => {
                let data = number(number(data, 1, *kind as u32)?, 2, *family)?;
                number(number(data, 3, address.0)?, 5, port.0)
            }
            Self::Limit { set, from, each_second, at_first, forgotten_after } => {
                // NFT_DYNSET_OP_UPDATE.
                let data = number(number(data.attribute(1, &terminated(set))?, 3, 1)?, 4, from.0)?;
                data.attribute(6, &forgotten_after.to_be_bytes())?.nested(7, |limit| {
                    limit.attribute(NAME, &terminated("limit"))?.nested(DATA, |data| {
                        // So many in one second.
                        let data = data.attribute(1, &each_second.to_be_bytes())?.attribute(2, &1_u64.to_be_bytes())?;
                        number(data, 3, *at_first)
                    })
                })
            }
            Self::Log { group, length } => {
                // One at a time, at once: NFTA_LOG_QTHRESHOLD.
                let data = number(data.attribute(1, &group.to_be_bytes())?, 3, *length)?;
                data.attribute(4, &1_u16.to_be_bytes())
            }
            Self::Refuse(Refusal::Reset) => number(data, 1, 1),
            // NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED.
            Self::Refuse(Refusal::Prohibited) => number(data, 1, 2)?.attribute(2, &[3]),
            Self::Masquerade | Self::Count => Ok(data),
            Self::Decide(verdict) => number(data, 1, Register::VERDICT.0)?
                .nested(2, |data| data.nested(VERDICT, |data| write_verdict(data, *verdict))),
        }
    }
}

fn write_verdict(data: Request, verdict: Verdict<'_>) -> Filled {
    match verdict {
        Verdict::Drop => number(data, VERDICT_CODE, 0),
        Verdict::Accept => number(data, VERDICT_CODE, 1),
        // NFT_JUMP is -3.
        Verdict::Jump(chain) => {
            number(data, VERDICT_CODE, (-3_i32).cast_unsigned())?.attribute(VERDICT_CHAIN, &terminated(chain))
        }
    }
}

/// Appends a number in network order.
pub fn number(request: Request, kind: u16, number: u32) -> Filled {
    request.attribute(kind, &number.to_be_bytes())
}

/// Appends bytes as a value.
pub fn value(request: Request, kind: u16, bytes: &[u8]) -> Filled {
    request.nested(kind, |data| data.attribute(VALUE, bytes))
}

/// A string as the kernel reads it.
pub fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}
