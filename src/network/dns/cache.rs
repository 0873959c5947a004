//! Other servers' answers, for as long as they live, and no more of them than fit. Asks nobody.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::message::{Answer, Manner, Question};
use super::name::Name;

/// Answers, and bytes of all of them: what a small process can be seen to have.
const ANSWERS: usize = 512;
const BYTES: usize = 256 << 10;

/// A longer life than this is taken for it: a laptop's networks change.
const LONGEST: Duration = Duration::from_hours(1);

/// The same for an answer that there is nothing (RFC 2308, 5, which allows three hours).
const LONGEST_NOTHING: Duration = Duration::from_mins(5);

/// What a question has been asked as, and whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    name: Name,
    kind: u16,
    class: u16,
    manner: Manner,
    servers: Rc<[SocketAddr]>,
}

impl Key {
    pub(super) fn new(question: &Question, manner: Manner, servers: Rc<[SocketAddr]>) -> Self {
        Self { name: question.name.folded(), kind: question.kind, class: question.class, manner, servers }
    }
}

#[derive(Default)]
pub(super) struct Cache {
    kept: HashMap<Key, Kept>,
    bytes: usize,
}

struct Kept {
    answer: Rc<Answer>,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// Finds an answer that lives; gives its age in seconds, too.
    pub(super) fn find(&self, key: &Key, now: Instant) -> Option<(Rc<Answer>, u32)> {
        let kept = self.kept.get(key).filter(|kept| now < kept.until)?;
        let age = now.saturating_duration_since(kept.since).as_secs();
        Some((Rc::clone(&kept.answer), u32::try_from(age).unwrap_or(u32::MAX)))
    }

    /// Keeps an answer, if it may be kept. Those that end first make room for it.
    pub(super) fn keep(&mut self, key: Key, answer: &Rc<Answer>, now: Instant) {
        let most = if answer.says_nothing() { LONGEST_NOTHING } else { LONGEST };
        let life = Duration::from_secs(answer.life().into()).min(most);
        let size = size(&key, answer);
        if life.is_zero() || size > BYTES / 4 {
            return;
        }
        self.forget(&key);
        if self.kept.len() >= ANSWERS || self.bytes + size > BYTES {
            self.kept.retain(|_, kept| now < kept.until);
            self.bytes = self.kept.iter().map(|(key, kept)| self::size(key, &kept.answer)).sum();
        }
        while self.kept.len() >= ANSWERS || self.bytes + size > BYTES {
            let Some(first) = self.kept.iter().min_by_key(|(_, kept)| kept.until).map(|(key, _)| key.clone()) else {
                break;
            };
            self.forget(&first);
        }
        self.bytes += size;
        self.kept.insert(key, Kept { answer: Rc::clone(answer), since: now, until: now + life });
    }

    fn forget(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.bytes = self.bytes.saturating_sub(size(key, &kept.answer));
        }
    }
}

/// What an answer costs, with the table's share.
fn size(key: &Key, answer: &Answer) -> usize {
    answer.length() + key.name.wire().len() + size_of::<Key>() + size_of::<Kept>() + 2 * size_of::<usize>()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::message::{self, Query, Said, kind};
    use super::*;

    fn question(text: &str) -> Question {
        Question { name: Name::parse(text).unwrap(), kind: kind::A, class: message::IN }
    }

    /// An answer of so many addresses that lives so many seconds.
    fn answer(text: &str, count: u8, life: u32) -> Rc<Answer> {
        let asked = message::ask(1, &question(text), Manner::default(), false);
        let query = Query::read(&asked).unwrap();
        let mut reply = query.reply(message::Code::NoError);
        (0..count).for_each(|last| reply.address(Ipv4Addr::new(10, 0, 0, last).into(), life));
        match Answer::read(&reply.finish(message::LONGEST), 1, &question(text)) {
            Some(Said::Answer(answer)) => Rc::new(answer),
            other => panic!("{other:?}"),
        }
    }

    fn key(text: &str, server: &str) -> Key {
        Key::new(&question(text), Manner::default(), [server.parse().unwrap()].into())
    }

    #[test]
    fn answers_live_as_long_as_they_say() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let found =
            |cache: &Cache, key: &Key, seconds| cache.find(key, now + Duration::from_secs(seconds)).map(|(_, age)| age);
        let here = key("a.example", "127.0.0.1:53");
        cache.keep(here.clone(), &answer("a.example", 1, 60), now);
        assert_eq!([0, 59, 60].map(|seconds| found(&cache, &here, seconds)), [Some(0), Some(59), None]);
        assert_eq!(found(&cache, &key("A.EXAMPLE", "127.0.0.1:53"), 1), Some(1));
        assert_eq!(found(&cache, &key("a.example", "127.0.0.2:53"), 1), None, "another server may say otherwise");
        cache.keep(key("b.example", "127.0.0.1:53"), &answer("b.example", 1, 0), now);
        cache.keep(key("c.example", "127.0.0.1:53"), &answer("c.example", 0, 60), now);
        assert_eq!(cache.kept.len(), 1, "what has no life is not kept");
        cache.keep(here.clone(), &answer("a.example", 1, 1 << 30), now);
        assert_eq!([3599, 3600].map(|seconds| found(&cache, &here, seconds)), [Some(3599), None]);
    }

    #[test]
    fn there_is_room_for_so_much() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..4000_u32 {
            let text = format!("n{number}.example");
            cache.keep(key(&text, "127.0.0.1:53"), &answer(&text, (number % 200) as u8, 60 + number), now);
            assert!(cache.kept.len() <= ANSWERS && cache.bytes <= BYTES);
        }
        let bytes: usize = cache.kept.iter().map(|(key, kept)| size(key, &kept.answer)).sum();
        assert_eq!(cache.bytes, bytes);
        assert!(cache.find(&key("n3999.example", "127.0.0.1:53"), now).is_some(), "those that end first have gone");
        assert!(cache.find(&key("n1.example", "127.0.0.1:53"), now).is_none());
    }
}
