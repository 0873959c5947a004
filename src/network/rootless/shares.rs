//! How much of a table each address has. Who is heard or speaks much may have much of it while there is room, and never the
//! rest: one may have as much as is free.
//!
//! So one alone gets half of a table, and whoever comes new finds as much free as the greatest of the others has, and gets half of
//! that; as those let go, of two each gets a third (dynamic thresholds, as switches share buffers). It is an address that is counted:
//! a container has one of each family in each of its networks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

#[derive(Debug, Default)]
pub(super) struct Shares(HashMap<IpAddr, usize>);

impl Shares {
    /// Says whether an address may have one more of a table that has so much room.
    pub(super) fn allow(&self, address: IpAddr, room: usize) -> bool {
        self.0.get(&address).copied().unwrap_or(0) < room
    }

    pub(super) fn take(&mut self, address: IpAddr) {
        *self.0.entry(address).or_default() += 1;
    }

    pub(super) fn give_back(&mut self, address: IpAddr) {
        if let Entry::Occupied(mut count) = self.0.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_what_is_left() {
        const MOST: usize = 120;
        let mut shares = Shares::default();
        let mut held = 0;
        let mut fill = |shares: &mut Shares, address: &str| {
            let address: IpAddr = address.parse().unwrap();
            let before = held;
            while shares.allow(address, MOST - held) {
                shares.take(address);
                held += 1;
            }
            held - before
        };
        assert_eq!(["10.0.0.2", "10.0.0.3", "fd00::2"].map(|address| fill(&mut shares, address)), [60, 30, 15]);
        assert_eq!(fill(&mut shares, "10.0.0.2"), 0, "not while others want it");
        let one: IpAddr = "10.0.0.2".parse().unwrap();
        (0..60).for_each(|_| shares.give_back(one));
        assert_eq!(shares.0.len(), 2);
    }
}
