//! A bounded table whose entries are known by tokens, which a token of what was there before never stands for: what epoll
//! and timers remember of an entry may outlive it.

/// What an entry is known by: place and turn, and the kind of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Token(pub u64);

/// The kinds of tables, and of what there is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Device,
    Control,
    Client,
    User,
    Listener,
    Stream,
    Datagram,
    Maker,
    /// The second socket of a stream: its tokens are the stream's.
    Guest,
}

const KINDS: [Kind; 9] = [
    Kind::Device,
    Kind::Control,
    Kind::Client,
    Kind::User,
    Kind::Listener,
    Kind::Stream,
    Kind::Datagram,
    Kind::Maker,
    Kind::Guest,
];

impl Token {
    /// Of that of which there is one.
    pub(super) const fn only(kind: Kind) -> Self {
        Self((kind as u64) << 56)
    }

    pub(super) fn kind(self) -> Option<Kind> {
        KINDS.get(usize::from(self.0.to_be_bytes()[0])).copied()
    }

    /// The token of the same place and turn with another kind.
    pub(super) const fn as_kind(self, kind: Kind) -> Self {
        Self(((kind as u64) << 56) | (self.0 & ((1 << 56) - 1)))
    }

    fn number(self) -> u32 {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    fn place(self) -> usize {
        self.number() as usize
    }

    fn turn(self) -> u32 {
        let [_, a, b, c, ..] = self.0.to_be_bytes();
        u32::from_be_bytes([0, a, b, c])
    }
}

const TURNS: u32 = 0xff_ffff;

/// The entries of one kind.
pub(super) struct Table<T> {
    kind: Kind,
    most: usize,
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    /// With which turn a new slot begins: later than any that is gone.
    first_turn: u32,
}

impl<T> Table<T> {
    pub(super) fn new(kind: Kind, most: usize) -> Self {
        Self { kind, most, slots: Vec::new(), free: Vec::new(), first_turn: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    /// How many more there may be.
    pub(super) fn room(&self) -> usize {
        self.most.saturating_sub(self.len())
    }

    /// Gives the token that the next entry gets.
    pub(super) fn next(&self) -> Token {
        let place = self.free.last().map_or(self.slots.len() as u64, |place| u64::from(*place));
        let turn = self.slots.get(usize::try_from(place).unwrap_or(usize::MAX)).map_or(self.first_turn, |slot| slot.0);
        Token((self.kind as u64) << 56 | u64::from(turn) << 32 | place)
    }

    /// Puts an entry in; it is given back where the table is full.
    pub(super) fn insert(&mut self, entry: T) -> Result<Token, T> {
        if self.is_full() {
            return Err(entry);
        }
        let token = self.next();
        match self.free.pop() {
            Some(place) => self.slots[place as usize].1 = Some(entry),
            None => self.slots.push((self.first_turn, Some(entry))),
        }
        Ok(token)
    }

    pub(super) fn get(&self, token: Token) -> Option<&T> {
        let (turn, entry) = self.slots.get(token.place())?;
        entry.as_ref().filter(|_| *turn == token.turn())
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let (turn, entry) = self.slots.get_mut(token.place())?;
        entry.as_mut().filter(|_| *turn == token.turn())
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<T> {
        let (turn, entry) = self.slots.get_mut(token.place())?;
        let taken = if *turn == token.turn() { entry.take() } else { None }?;
        *turn = (*turn + 1) & TURNS;
        self.free.push(token.number());
        // What a crowd has taken is given back once it has left.
        if self.free.len() == self.slots.len() && self.slots.len() > KEPT as usize {
            self.first_turn_after_crowd();
        }
        Some(taken)
    }

    /// Lets go of the memory; turns go on from the highest, so that no old token fits.
    fn first_turn_after_crowd(&mut self) {
        let highest = self.slots.iter().map(|slot| slot.0).max().unwrap_or(0);
        self.first_turn = (highest + 1) & TURNS;
        self.slots.truncate(KEPT as usize);
        self.slots.shrink_to_fit();
        for slot in &mut self.slots {
            slot.0 = self.first_turn;
        }
        self.free = (0..KEPT).rev().collect();
    }

    pub(super) fn tokens(&self) -> Vec<Token> {
        self.entries().map(|(token, _)| token).collect()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (Token, &T)> {
        self.slots.iter().zip(0_u64..).filter_map(|((turn, entry), place)| {
            let token = Token((self.kind as u64) << 56 | u64::from(*turn) << 32 | place);
            entry.as_ref().map(|entry| (token, entry))
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.1.as_mut())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.1.as_ref())
    }
}

/// Slots that an empty table keeps.
const KEPT: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_for_one_entry_only() {
        let mut table = Table::new(Kind::Stream, 2);
        let next = table.next();
        let one = table.insert("one").unwrap();
        assert_eq!((one, one.kind()), (next, Some(Kind::Stream)));
        let two = table.insert("two").unwrap();
        assert_eq!(table.insert("three"), Err("three"));
        assert_eq!(table.remove(one), Some("one"));
        let three = table.insert("three").unwrap();
        assert_ne!(one, three);
        assert_eq!((table.get(one), table.get(three), table.get(two)), (None, Some(&"three"), Some(&"two")));
        assert_eq!((table.remove(one), table.len()), (None, 2));
        let as_other = two.as_kind(Kind::Guest);
        assert_eq!((as_other.kind(), as_other.as_kind(Kind::Stream)), (Some(Kind::Guest), two));
        assert_eq!(table.tokens(), [three, two]);
    }

    #[test]
    fn a_crowd_leaves_nothing_behind() {
        let mut table = Table::new(Kind::Stream, 10_000);
        let tokens: Vec<_> = (0..1000).map(|number| table.insert(number).unwrap()).collect();
        for token in &tokens {
            assert!(table.remove(*token).is_some());
        }
        assert_eq!((table.len(), table.slots.len()), (0, KEPT as usize));
        let again: Vec<_> = (0..100).map(|number| table.insert(number).unwrap()).collect();
        assert!(again.iter().all(|token| table.get(*token).is_some()));
        assert!(tokens.iter().all(|token| table.get(*token).is_none()));
    }
}
