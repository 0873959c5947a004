//! Packets that others have overtaken, and that are wanted in a moment: two processors of this machine do not always hand over in
//! the order in which one process has sent. They are kept for no longer than that, and few of them.

use std::collections::VecDeque;

use super::table::Token;

/// Of 64 KiB at most: all that a turn reads.
const MOST: usize = 32;

/// What is kept: whose it is, where in the stream it begins, and the packet as the device gave it.
struct Held {
    token: Token,
    sequence: u32,
    packet: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Early(VecDeque<Held>);

impl Early {
    /// Keeps a packet; the oldest gives way.
    pub(super) fn keep(&mut self, token: Token, sequence: u32, packet: &[u8]) {
        if self.0.iter().any(|held| held.token == token && held.sequence == sequence) {
            return;
        }
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(Held { token, sequence, packet: packet.to_vec() });
    }

    /// Gives a packet back that begins where a connection has come to, or before that.
    pub(super) fn take(&mut self, token: Token, expected: u32) -> Option<Vec<u8>> {
        let is_due = |held: &Held| held.token == token && !super::tcp::is_before(expected, held.sequence);
        let place = self.0.iter().position(is_due)?;
        self.0.remove(place).map(|held| held.packet)
    }

    /// Gives all back that is somebody's.
    pub(super) fn take_all(&mut self, token: Token) -> impl Iterator<Item = Vec<u8>> {
        let (its, others) = std::mem::take(&mut self.0).into_iter().partition(|held: &Held| held.token == token);
        self.0 = others;
        let its: VecDeque<Held> = its;
        its.into_iter().map(|held| held.packet)
    }

    /// Lets go of all, and of their memory.
    pub(super) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Kind;
    use super::*;

    #[test]
    fn the_next_is_found_and_the_oldest_gives_way() {
        let (one, other) = (Token::only(Kind::Stream), Token::only(Kind::Datagram));
        let mut early = Early::default();
        for (sequence, packet) in [(u32::MAX - 1, "first"), (8, "third"), (3, "second"), (3, "again")] {
            early.keep(one, sequence, packet.as_bytes());
        }
        early.keep(other, 3, b"another's");
        assert_eq!(early.take(one, u32::MAX - 2), None, "not yet");
        let taken = [u32::MAX - 1, 3, 3, 8].map(|expected| early.take(one, expected));
        let expected = [Some("first"), Some("second"), None, Some("third")];
        assert_eq!(taken, expected.map(|packet| packet.map(|packet| packet.as_bytes().to_vec())));
        assert_eq!(early.take_all(other).collect::<Vec<_>>(), [b"another's"]);
        for sequence in 0..40 {
            early.keep(one, sequence, b"");
        }
        assert_eq!((early.0.len(), early.0[0].sequence), (MOST, 8));
    }
}
