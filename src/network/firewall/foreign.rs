//! Other firewalls: where one drops what it forwards and knows nothing of (dockerd's and ufw's policy), a rule of ours at the
//! end of its chain lets a bridge's packets on. What its own rules drop stays dropped; what else is allowed is decided in husk's
//! own tables, which see the packets too.
//!
//! Nothing else of it is touched, and its rules are never changed: ours are known by the comment `husk`, and go when the
//! network goes. A chain that xtables has without nf_tables (`iptables-legacy`) is not seen from here; firewalld's last word is
//! a rule of its own, in tables that nobody else may change, and it is to be told (`--zone=trusted --add-interface`).

use rustix::io::Errno;

use super::expression::{Comparison, Expression, Meta, Register, Verdict, terminated};
use super::message::SUBSYSTEM;
use crate::error::{Context, Error, Result};
use crate::sys::netlink::{Request, Socket, find_attribute};

/// `NFT_MSG_*`.
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;

/// `nfgenmsg`.
const BODY_LENGTH: usize = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NF_INET_FORWARD`, `NF_DROP`.
const FORWARD: u32 = 2;
const DROP: u32 = 0;

/// The families in which packets of bridges are forwarded: inet, ip, ip6. A dump of none is of all.
const FAMILIES: [u8; 3] = [1, 2, 10];
const ALL: u8 = 0;

/// What our rules say of themselves: nft's comment (type 0), with its length and its end.
const MARK: &[u8] = b"\0\x05husk\0";

/// A chain that drops what it does not know.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    family: u8,
    table: Vec<u8>,
    name: Vec<u8>,
}

/// A rule of ours in such a chain.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    handle: Vec<u8>,
    interface: Vec<u8>,
}

/// Lets the packets of a bridge through the chains of others that would drop them, by a socket to nf_tables.
pub fn let_through(socket: &Socket, bridge: &str) -> Result<()> {
    let describe = || format!("let packets of {bridge} through the firewalls of others");
    let mut requests = Vec::new();
    for chain in dropping_chains(socket).with_context(describe)? {
        let is_there = rules(socket, &chain).with_context(describe)?.iter().any(|rule| rule.is_of(bridge));
        if !is_there {
            for key in [Meta::IncomingName, Meta::OutgoingName] {
                requests.push(chain.accept(key, bridge).with_context(describe)?);
            }
        }
    }
    send(socket, requests).with_context(describe)
}

/// Takes our rules for a bridge away again.
pub fn forget(bridge: &str) -> Result<()> {
    let describe = || format!("remove the rules for {bridge} from the firewalls of others");
    let socket = Socket::open_netfilter().with_context(describe)?;
    let mut requests = Vec::new();
    for chain in dropping_chains(&socket).with_context(describe)? {
        for rule in rules(&socket, &chain).with_context(describe)?.iter().filter(|rule| rule.is_of(bridge)) {
            requests.push(chain.delete(rule).with_context(describe)?);
        }
    }
    send(&socket, requests).with_context(describe)
}

fn send(socket: &Socket, requests: Vec<Request>) -> Result<()> {
    if requests.is_empty() {
        return Ok(());
    }
    match socket.transact(SUBSYSTEM, requests) {
        // Who owns the chain has taken it away, or the rule, in between.
        Ok(()) | Err((_, Errno::NOENT)) => Ok(()),
        Err((_, errno)) => Err(Error::from(errno)),
    }
}

fn dropping_chains(socket: &Socket) -> Result<Vec<Chain>, Errno> {
    let mut chains = Vec::new();
    let request = Request::dump(u16::from(SUBSYSTEM) << 8 | GET_CHAIN, &[ALL, 0, 0, 0]);
    socket.call(request, |object| chains.extend(Chain::read(object)))?;
    Ok(chains)
}

fn rules(socket: &Socket, chain: &Chain) -> Result<Vec<Rule>, Errno> {
    let request = Request::dump(u16::from(SUBSYSTEM) << 8 | GET_RULE, &[chain.family, 0, 0, 0]);
    let request = request.attribute(1, &chain.table)?.attribute(2, &chain.name)?;
    let mut rules = Vec::new();
    match socket.call(request, |object| rules.extend(Rule::read(object, chain))) {
        Ok(()) | Err(Errno::NOENT) => Ok(rules),
        Err(errno) => Err(errno),
    }
}

fn number(attributes: &[u8], wanted: u16) -> Option<u32> {
    find_attribute(attributes, wanted)?.try_into().ok().map(u32::from_be_bytes)
}

impl Chain {
    /// Reads what the kernel tells of a chain, if it is one that drops what is forwarded and unknown.
    fn read(object: &[u8]) -> Option<Self> {
        let (body, attributes) = object.split_at_checked(BODY_LENGTH)?;
        let hook = number(find_attribute(attributes, 4)?, 1)?;
        let policy = number(attributes, 5)?;
        let (table, name) = (find_attribute(attributes, 1)?, find_attribute(attributes, 3)?);
        let drops = FAMILIES.contains(&body[0])
            && (hook, policy) == (FORWARD, DROP)
            && find_attribute(attributes, 7)?.starts_with(b"filter");
        drops.then(|| Self { family: body[0], table: table.to_vec(), name: name.to_vec() })
    }

    /// A rule behind the others, in the words that `iptables -A FORWARD -i … -j ACCEPT` has in nf_tables: its users go on
    /// reading the chain.
    fn accept(&self, key: Meta, bridge: &str) -> Result<Request, Errno> {
        let name = Register::word(0);
        let expressions = [
            Expression::Meta { key, into: name },
            Expression::Compare { register: name, comparison: Comparison::Equal, with: terminated(bridge) },
            Expression::Count,
            Expression::Decide(Verdict::Accept),
        ];
        self.request(NEW_RULE, CREATE | APPEND)?
            .nested(4, |list| expressions.iter().try_fold(list, |list, expression| expression.write(list)))?
            .attribute(7, &marked(bridge))
    }

    fn delete(&self, rule: &Rule) -> Result<Request, Errno> {
        self.request(DELETE_RULE, 0)?.attribute(3, &rule.handle)
    }

    fn request(&self, kind: u16, flags: u16) -> Result<Request, Errno> {
        Request::in_batch(u16::from(SUBSYSTEM) << 8 | kind, &[self.family, 0, 0, 0])
            .with_flags(flags)
            .attribute(1, &self.table)?
            .attribute(2, &self.name)
    }
}

/// The mark, and behind it, as a kind that nft does not know and passes over, the bridge.
fn marked(bridge: &str) -> Vec<u8> {
    let length = u8::try_from(bridge.len()).unwrap_or(u8::MAX);
    [MARK, &[BRIDGE_KIND, length], bridge.as_bytes()].concat()
}

const BRIDGE_KIND: u8 = 0xb1;

impl Rule {
    /// Reads what the kernel tells of a rule, if it is one of ours in that chain.
    fn read(object: &[u8], chain: &Chain) -> Option<Self> {
        let (_, attributes) = object.split_at_checked(BODY_LENGTH)?;
        // Kernels before 4.20 tell of all rules, whatever was asked.
        let is_of_chain = find_attribute(attributes, 1)? == chain.table && find_attribute(attributes, 2)? == chain.name;
        let (kind, interface) = find_attribute(attributes, 7)?.strip_prefix(MARK)?.split_at_checked(2)?;
        let is_ours = is_of_chain && kind[0] == BRIDGE_KIND && usize::from(kind[1]) == interface.len();
        is_ours
            .then(|| Some(Self { handle: find_attribute(attributes, 3)?.to_vec(), interface: interface.to_vec() }))?
    }

    fn is_of(&self, bridge: &str) -> bool {
        self.interface == bridge.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::tests::in_own_namespace;
    use crate::sys::netlink::Request;

    /// A firewall as iptables-nft makes it.
    fn make_foreign(policy: u32) {
        let socket = Socket::open_netfilter().unwrap();
        let request = |kind: u16| Request::in_batch(u16::from(SUBSYSTEM) << 8 | kind, &[2, 0, 0, 0]).with_flags(CREATE);
        let table = request(0).attribute(1, b"filter\0").unwrap();
        let chain = request(3).attribute(1, b"filter\0").unwrap().attribute(3, b"FORWARD\0").unwrap();
        let hook = |data: Request| data.attribute(1, &FORWARD.to_be_bytes())?.attribute(2, &0_u32.to_be_bytes());
        let chain = chain.nested(4, hook).unwrap().attribute(5, &policy.to_be_bytes()).unwrap();
        let chain = chain.attribute(7, b"filter\0").unwrap();
        socket.transact(SUBSYSTEM, vec![table, chain]).unwrap();
    }

    fn count(bridge: &str) -> usize {
        let socket = Socket::open_netfilter().unwrap();
        let chains = dropping_chains(&socket).unwrap();
        chains.iter().flat_map(|chain| rules(&socket, chain).unwrap()).filter(|rule| rule.is_of(bridge)).count()
    }

    #[test]
    fn a_chain_that_drops_gets_two_rules_and_loses_them() {
        in_own_namespace(|| {
            let socket = Socket::open_netfilter().unwrap();
            let let_through = |bridge| let_through(&socket, bridge);
            let_through("husk0").unwrap();
            make_foreign(DROP);
            assert_eq!(count("husk0"), 0);
            for _ in 0..2 {
                let_through("husk0").unwrap();
                let_through("hk-1").unwrap();
            }
            assert_eq!((count("husk0"), count("hk-1")), (2, 2));
            forget("husk0").unwrap();
            assert_eq!((count("husk0"), count("hk-1")), (0, 2));
        });
    }

    #[test]
    fn a_chain_that_accepts_is_left_alone() {
        in_own_namespace(|| {
            make_foreign(1);
            let socket = Socket::open_netfilter().unwrap();
            let_through(&socket, "husk0").unwrap();
            assert_eq!(dropping_chains(&socket).unwrap(), []);
        });
    }
}
