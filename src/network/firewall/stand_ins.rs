//! Packets for sockets that stand for addresses of elsewhere (`IP_TRANSPARENT`): a rule marks them, and routes by that mark keep
//! them in this network namespace. For the namespace of an ordinary user's networks alone: what it does not lead to such a socket
//! goes on as it did.

use rustix::io::Errno;

use super::expression::{Expression, Meta, Register};
use super::message::{Family, Hook, Table};
use super::{FIRST, PREROUTING, equal, transact};
use crate::error::Result;
use crate::sys::netlink::{Request, Socket};

const TABLE: Table<'static> = Table { family: Family::Inet, name: "husk-stand-ins" };
/// Behind the memory of connections, before addresses are translated (linux/netfilter_ipv4.h: `NF_IP_PRI_MANGLE`).
const PRIORITY: i32 = -150;
const TCP: u8 = 6;

/// "hu", in ASCII: a mark and a table of routes of this namespace, which nobody else has any in.
const MARK: u32 = 0x6875;
const ROUTES: u32 = 0x6875;
/// Before the tables of everybody's (`ip rule`: 32766).
const BEFORE_OTHERS: u32 = 100;

/// `AF_INET`, `AF_INET6`.
const INET: u8 = 2;
const INET6: u8 = 10;

/// Numbers of linux/rtnetlink.h and fib_rules.h.
const NEW_ROUTE: u16 = 24;
const NEW_RULE: u16 = 32;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const RULE_PRIORITY: u16 = 6;
const RULE_MARK: u16 = 10;
const RULE_TABLE: u16 = 15;
const TO_TABLE: u8 = 1;
const ROUTE_INTERFACE: u16 = 4;
const ROUTE_TABLE: u16 = 15;
/// `RT_TABLE_UNSPEC` (the attribute says which), `RTPROT_STATIC`, `RT_SCOPE_HOST`, `RTN_LOCAL`.
const LOCAL: [u8; 4] = [0, 4, 254, 2];
/// The loopback's number is the same in every network namespace.
const LOOPBACK: u32 = 1;

/// Has packets for such sockets stay in this process's network namespace, and says whether those of IPv4 and those of IPv6 do. What
/// is there already may stay.
pub fn keep_for_stand_ins(firewall: &Socket, routes: &Socket) -> Result<[bool; 2]> {
    transact(firewall, rules, "lead packets to sockets that stand for others")?;
    // Both are refused by a kernel without routing rules, or that family.
    Ok([INET, INET6].map(|family| route(routes, family).is_ok()))
}

fn rules() -> Result<Vec<Request>, Errno> {
    let mark = Register::word(1);
    let rule = [
        Expression::Meta { key: Meta::Transport, into: FIRST },
        equal(&[TCP]),
        Expression::IsForStandIn { into: FIRST },
        equal(&[1]),
        Expression::Load { value: MARK.to_ne_bytes().to_vec(), into: mark },
        Expression::SetMeta { key: Meta::Mark, from: mark },
    ];
    let hook = Hook { kind: "filter", number: PREROUTING, priority: PRIORITY };
    // Made, so that it can be removed whoever left it, and made anew.
    Ok(vec![
        TABLE.create()?,
        TABLE.delete()?,
        TABLE.create()?,
        TABLE.add_chain("incoming", Some(hook))?,
        TABLE.add_rule("incoming", &rule)?,
    ])
}

fn route(socket: &Socket, family: u8) -> Result<(), Errno> {
    // `fib_rule_hdr`: the table is in an attribute.
    let body = [family, 0, 0, 0, 0, 0, 0, TO_TABLE, 0, 0, 0, 0];
    let rule = Request::act(NEW_RULE, &body)
        .with_flags(CREATE | EXCLUSIVE)
        .attribute(RULE_PRIORITY, &BEFORE_OTHERS.to_ne_bytes())?
        .attribute(RULE_MARK, &MARK.to_ne_bytes())?
        .attribute(RULE_TABLE, &ROUTES.to_ne_bytes())?;
    let mut body = [0; 12];
    body[0] = family;
    body[4..8].copy_from_slice(&LOCAL);
    let route = Request::act(NEW_ROUTE, &body)
        .with_flags(CREATE | EXCLUSIVE)
        .attribute(ROUTE_INTERFACE, &LOOPBACK.to_ne_bytes())?
        .attribute(ROUTE_TABLE, &ROUTES.to_ne_bytes())?;
    for request in [rule, route] {
        match socket.call(request, |_| ()) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
