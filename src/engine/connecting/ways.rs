//! Through which of its networks a container reaches everywhere, and is reached by its published ports: of each family one, as
//! docker has it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Seat;
use crate::engine::networks::driver::Driver;
use crate::network::port::BoundPort;
use crate::network::way::Way;

/// The places of those networks in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ways {
    ipv4: Option<usize>,
    ipv6: Option<usize>,
}

/// What the choice is made by.
struct Candidate {
    is_internal: bool,
    has_default_route: bool,
    priority: i32,
}

impl Ways {
    pub(super) fn of(seats: &[Seat<'_>]) -> Self {
        let choose = |is_ipv6| {
            let has_family = |seat: &Seat<'_>| seat.network().subnets.iter().any(|of| of.block.is_ipv6() == is_ipv6);
            let candidate = |seat: &Seat<'_>| Candidate {
                is_internal: seat.network().internal,
                has_default_route: seat.place.options.has_default_route,
                priority: seat.place.attachment.gateway_priority,
            };
            let all = seats.iter().map(|seat| has_family(seat).then(|| candidate(seat)));
            choose(&all.collect::<Vec<_>>())
        };
        Self { ipv4: choose(false), ipv6: choose(true) }
    }

    fn of_family(self, is_ipv6: bool) -> Option<usize> {
        if is_ipv6 { self.ipv6 } else { self.ipv4 }
    }

    /// The gateways of the network at a place that its container's packets go by.
    pub(super) fn gateways(self, number: usize, seat: &Seat<'_>) -> Vec<IpAddr> {
        if !seat.place.options.has_default_route {
            return Vec::new();
        }
        let leads = |gateway: &IpAddr| self.of_family(gateway.is_ipv6()) == Some(number);
        seat.network().subnets.iter().map(|subnet| subnet.gateway).filter(leads).collect()
    }

    /// The same of all networks.
    pub(super) fn to_everywhere<'s>(self, seats: &'s [Seat<'_>]) -> Vec<Way<'s>> {
        let of = |(number, seat): (usize, &'s Seat<'_>)| {
            let way = |gateway| Way { interface: &seat.lease.interface, gateway, metric: seat.place.options.metric };
            self.gateways(number, seat).into_iter().map(way).collect::<Vec<_>>()
        };
        seats.iter().enumerate().flat_map(of).collect()
    }

    /// Whether callers of a family are led to the network at a place; where no network has that family, to what has the other.
    fn serves(self, number: usize, is_ipv6: bool, seats: &[Seat<'_>]) -> bool {
        let has_bridge =
            |number: &usize| seats.get(*number).is_some_and(|seat| seat.network().driver == Driver::Bridge);
        let [own, other] = [is_ipv6, !is_ipv6].map(|family| self.of_family(family).filter(has_bridge));
        own.or(other) == Some(number)
    }

    /// Where callers are led: an address of each family that is served.
    pub(super) fn targets(self, seats: &[Seat<'_>]) -> Vec<IpAddr> {
        let of = |is_ipv6| {
            let number = (0..seats.len()).find(|number| self.serves(*number, is_ipv6, seats))?;
            seats.get(number)?.lease.addresses.iter().find(|address| address.is_ipv6() == is_ipv6).copied()
        };
        [of(false), of(true)].into_iter().flatten().collect()
    }

    /// What of a container's ports leads to the network at a place.
    pub(super) fn published(self, number: usize, seats: &[Seat<'_>], bound: &[BoundPort]) -> Vec<BoundPort> {
        let [ipv4, ipv6] = [false, true].map(|is_ipv6| self.serves(number, is_ipv6, seats));
        let of = |bound: &BoundPort| {
            let host = match (bound.host, ipv4, ipv6) {
                (_, false, false) => return None,
                (host, true, true) => host,
                (None, true, _) => Some(Ipv4Addr::UNSPECIFIED.into()),
                (None, _, true) => Some(Ipv6Addr::UNSPECIFIED.into()),
                (Some(host), _, _) if host.is_ipv6() == ipv6 => Some(host),
                (Some(_), _, _) => return None,
            };
            Some(BoundPort { host, ..*bound })
        };
        bound.iter().filter_map(of).collect()
    }
}

/// Of those that lead elsewhere, that of the highest priority, and of equals the first; those come last that have a gateway and
/// are not to be left by it.
fn choose(candidates: &[Option<Candidate>]) -> Option<usize> {
    let rank = |candidate: &Candidate| (candidate.has_default_route, candidate.priority);
    let leading = candidates.iter().enumerate().filter_map(|(number, candidate)| {
        let candidate = candidate.as_ref().filter(|candidate| !candidate.is_internal)?;
        Some((number, rank(candidate)))
    });
    // Of equals it gives the last.
    leading.rev().max_by_key(|(_, rank)| *rank).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_leads_and_of_equals_the_first() {
        let candidate =
            |is_internal, has_default_route, priority| Some(Candidate { is_internal, has_default_route, priority });
        for (candidates, expected) in [
            (vec![], None),
            (vec![candidate(false, true, 0), candidate(false, true, 0)], Some(0)),
            (vec![candidate(false, true, 0), candidate(false, true, 1)], Some(1)),
            (vec![candidate(true, true, 9), candidate(false, true, -1)], Some(1)),
            (vec![candidate(false, false, 9), candidate(false, true, -1)], Some(1)),
            (vec![candidate(true, true, 0), candidate(false, false, 0)], Some(1)),
            (vec![None, candidate(true, true, 0)], None),
            (vec![None, candidate(false, true, 0)], Some(1)),
        ] {
            assert_eq!(choose(&candidates), expected);
        }
    }
}
