//! The messages of DNS (RFC 1035, 4; RFC 3596; RFC 6891): reads what others send, byte by byte and to its end, and writes
//! what is said to them. Knows no network, and asks nobody.
//!
//! Records are never copied into trees of objects. Somebody else's answer stays the bytes that it came as: it is walked to
//! see that it is whole, its lives are shortened in place, and it is cut between two records where it is too long. Names
//! in it point to the front only, so what is cut off at the end is missed by nobody.

use std::net::IpAddr;
use std::ops::Range;

use super::name::{Name, POINTER};

/// Types of records, by IANA's numbers.
pub(super) mod kind {
    pub(in super::super) const A: u16 = 1;
    pub(in super::super) const SOA: u16 = 6;
    pub(in super::super) const PTR: u16 = 12;
    pub(in super::super) const AAAA: u16 = 28;
    pub(in super::super) const OPT: u16 = 41;
    /// Transfers of whole zones, for the servers of those.
    pub(in super::super) const IXFR: u16 = 251;
    pub(in super::super) const AXFR: u16 = 252;
    pub(in super::super) const ANY: u16 = 255;
}

/// The internet's class of records; there is no other in use.
pub(super) const IN: u16 = 1;

pub(super) const HEADER: usize = 12;

/// What a datagram holds for those who do not say that they take more (RFC 1035, 2.3.4).
const DATAGRAM: usize = 512;

/// What a datagram holds at most: IPv6's smallest packet less its headers, so that nothing is fragmented (RFC 9715).
pub(super) const LARGE_DATAGRAM: u16 = 1232;

/// Over a connection.
pub(super) const LONGEST: usize = u16::MAX as usize;

/// The record that says EDNS, without options.
const OPT_LENGTH: usize = 11;

/// The option of EDNS that explains a failure (RFC 8914), with its code and no text.
const EXPLANATION_LENGTH: usize = 6;

/// How a question was taken (RFC 1035, 4.1.1; RFC 6895, 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Code {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    BadVers = 16,
}

/// Why, for those who look (RFC 8914, 4): what a bare code leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Explanation {
    /// The policy of whoever runs this server.
    Blocked = 15,
    /// Who asks may not ask for that.
    Prohibited = 18,
    /// No server that is asked gives an answer.
    NoReachable = 22,
}

mod flag {
    pub(super) const RESPONSE: u16 = 1 << 15;
    pub(super) const OPCODE: u16 = 0b1111 << 11;
    pub(super) const AUTHORITATIVE: u16 = 1 << 10;
    pub(super) const TRUNCATED: u16 = 1 << 9;
    pub(super) const RECURSION_DESIRED: u16 = 1 << 8;
    pub(super) const RECURSION_AVAILABLE: u16 = 1 << 7;
    pub(super) const AUTHENTIC: u16 = 1 << 5;
    pub(super) const CHECKING_DISABLED: u16 = 1 << 4;
    pub(super) const CODE: u16 = 0b1111;
    /// In the life of the record that says EDNS: signatures are wanted (RFC 3225).
    pub(super) const SIGNATURES: u32 = 1 << 15;
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: u16,
    pub(super) class: u16,
}

impl Question {
    fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let (name, at) = Name::read(message, at)?;
        Some((Self { name, kind: u16_at(message, at)?, class: u16_at(message, at + 2)? }, at + 4))
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.name.wire());
        put_u16(bytes, self.kind);
        put_u16(bytes, self.class);
    }

    /// The same, whatever the case of its letters.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.kind, self.class) == (other.kind, other.class) && self.name.wire().eq_ignore_ascii_case(other.name.wire())
    }
}

/// What who asks says of itself by EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edns {
    datagram: u16,
    version: u8,
    wants_signatures: bool,
}

/// A message that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) id: u16,
    flags: u16,
    pub(super) question: Question,
    edns: Option<Edns>,
}

/// What is done with a message that asks for nothing that can be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Nothing: an answer to an answer would be answered (RFC 1035, 7.3, and long experience).
    Silence,
    Answer(Vec<u8>),
}

impl Query {
    /// Reads what a client sends.
    pub(super) fn read(message: &[u8]) -> Result<Self, Unfit> {
        let header = |index: usize| u16_at(message, 2 * index);
        let (Some(id), Some(flags), Some(_)) = (header(0), header(1), header(5)) else { return Err(Unfit::Silence) };
        if flags & flag::RESPONSE != 0 {
            return Err(Unfit::Silence);
        }
        let unfit = |code: Code| {
            let kept = flags & (flag::OPCODE | flag::RECURSION_DESIRED);
            let mut bytes = Vec::with_capacity(HEADER);
            put_words(&mut bytes, &[id, flag::RESPONSE | kept | code as u16, 0, 0, 0, 0]);
            Unfit::Answer(bytes)
        };
        if flags & flag::OPCODE != 0 {
            return Err(unfit(Code::NotImp));
        }
        // RFC 9619: one question, no more and no less.
        let walked = Question::read(message, HEADER).filter(|_| header(2) == Some(1));
        let Some((question, at)) = walked else { return Err(unfit(Code::FormErr)) };
        let mut edns = None;
        for record in Records::behind(message, at) {
            match record {
                // RFC 6891, 6.1.1: one at most, of the root.
                Some(record) if record.kind == kind::OPT => {
                    if edns.is_some() || !record.is_of_root || record.section != Section::Additional {
                        return Err(unfit(Code::FormErr));
                    }
                    edns = Some(Edns {
                        datagram: record.class,
                        version: record.life.to_be_bytes()[1],
                        wants_signatures: record.life & flag::SIGNATURES != 0,
                    });
                }
                Some(_) => {}
                None => return Err(unfit(Code::FormErr)),
            }
        }
        Ok(Self { id, flags, question, edns })
    }

    /// Whether it speaks a version of EDNS that is not known here, which the answer has to say (RFC 6891, 6.1.3).
    pub(super) fn is_of_the_future(&self) -> bool {
        self.edns.is_some_and(|edns| edns.version != 0)
    }

    pub(super) fn wants_recursion(&self) -> bool {
        self.flags & flag::RECURSION_DESIRED != 0
    }

    /// What makes answers to the same question differ: signatures, and whether they are to be checked.
    pub(super) fn manner(&self) -> Manner {
        Manner {
            wants_signatures: self.edns.is_some_and(|edns| edns.wants_signatures),
            checking_disabled: self.flags & flag::CHECKING_DISABLED != 0,
        }
    }

    /// The longest message that a datagram to who asked may have.
    pub(super) fn datagram(&self) -> usize {
        let most = usize::from(LARGE_DATAGRAM);
        self.edns.map_or(DATAGRAM, |edns| usize::from(edns.datagram).clamp(DATAGRAM, most))
    }

    /// Begins an answer.
    pub(super) fn reply(&self, code: Code) -> Reply<'_> {
        let kept = self.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
        let flags = flag::RESPONSE | flag::RECURSION_AVAILABLE | kept | code as u16 & flag::CODE;
        let mut bytes = Vec::with_capacity(128);
        put_words(&mut bytes, &[self.id, flags, 1, 0, 0, 0]);
        self.question.write(&mut bytes);
        Reply { query: self, bytes, code, explanation: None }
    }

    /// Makes somebody else's answer to the same question, so many seconds old, one to this, good for so many at most.
    pub(super) fn pass_on(&self, answer: &Answer, age: u32, most: u32, limit: usize) -> Vec<u8> {
        let mut bytes = answer.0.to_vec();
        let kept = self.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
        let theirs = u16_at(&bytes, 2).unwrap_or(0) & (flag::AUTHORITATIVE | flag::AUTHENTIC | flag::CODE);
        set_u16(&mut bytes, 0, self.id);
        set_u16(&mut bytes, 2, flag::RESPONSE | flag::RECURSION_AVAILABLE | kept | theirs);
        // As long, since it is the same but for the case of its letters: names that end in it point to it.
        if let Some(name) = bytes.get_mut(HEADER..HEADER + self.question.name.wire().len()) {
            name.copy_from_slice(self.question.name.wire());
        }
        if age > 0 || most < u32::MAX {
            let lives: Vec<(usize, u32)> = answer.records().map(|record| (record.life_at, record.life)).collect();
            for (at, life) in lives {
                if let Some(place) = bytes.get_mut(at..at + 4) {
                    place.copy_from_slice(&life.saturating_sub(age).min(most).to_be_bytes());
                }
            }
        }
        self.close(bytes, Code::NoError, None, limit)
    }

    /// Makes an answer fit, and ends it with what EDNS has to say.
    fn close(&self, bytes: Vec<u8>, code: Code, explanation: Option<Explanation>, limit: usize) -> Vec<u8> {
        let Some(edns) = self.edns else { return cut(bytes, limit) };
        let explanation_length = if explanation.is_some() { EXPLANATION_LENGTH } else { 0 };
        let mut bytes = cut(bytes, limit.saturating_sub(OPT_LENGTH + explanation_length));
        bytes.push(0);
        put_u16(&mut bytes, kind::OPT);
        put_u16(&mut bytes, LARGE_DATAGRAM);
        put_u16(&mut bytes, (code as u16 >> 4) << 8);
        put_u16(&mut bytes, if edns.wants_signatures { 1 << 15 } else { 0 });
        match explanation {
            None => put_u16(&mut bytes, 0),
            Some(explanation) => put_words(&mut bytes, &[6, 15, 2, explanation as u16]),
        }
        add_to_count(&mut bytes, Section::Additional);
        bytes
    }
}

/// See [`Query::manner`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Manner {
    wants_signatures: bool,
    checking_disabled: bool,
}

/// An answer that is being written. Every record in it is the asked name's, or one above it.
pub(super) struct Reply<'a> {
    query: &'a Query,
    bytes: Vec<u8>,
    code: Code,
    explanation: Option<Explanation>,
}

impl Reply<'_> {
    /// Says that who answers knows: it is its own name.
    pub(super) fn authoritative(mut self) -> Self {
        let flags = u16_at(&self.bytes, 2).unwrap_or(0) | flag::AUTHORITATIVE;
        set_u16(&mut self.bytes, 2, flags);
        self
    }

    pub(super) fn explained(mut self, explanation: Explanation) -> Self {
        self.explanation = Some(explanation);
        self
    }

    /// Adds an address of the name that was asked for.
    pub(super) fn address(&mut self, address: IpAddr, life: u32) {
        match address {
            IpAddr::V4(address) => self.record(Section::Answer, 0, kind::A, life, &address.octets()),
            IpAddr::V6(address) => self.record(Section::Answer, 0, kind::AAAA, life, &address.octets()),
        }
    }

    /// Adds a name that the name that was asked for, which stands for an address, leads to.
    pub(super) fn pointer(&mut self, name: &Name, life: u32) {
        self.record(Section::Answer, 0, kind::PTR, life, name.wire());
    }

    /// Says for how long one may remember that there is nothing (RFC 2308, 3), for a zone that begins so many labels
    /// behind the front of the asked name.
    pub(super) fn nothing_for(&mut self, life: u32, labels: usize) {
        let skipped = self.query.question.name.labels().take(labels).map(|label| label.len() + 1).sum();
        let [one, two, three, four] = life.to_be_bytes();
        // Two names, the server's and its keeper's, neither of which there is; a serial number, and how long secondary
        // servers, which there are none of, wait.
        let times = [0, 0, 0, 1, one, two, three, four, one, two, three, four, one, two, three, four];
        let data = [&[0, 0][..], &times, &[one, two, three, four]].concat();
        self.record(Section::Authority, skipped, kind::SOA, life, &data);
    }

    /// Ends the answer: as long as it may be, and no longer.
    pub(super) fn finish(self, limit: usize) -> Vec<u8> {
        self.query.close(self.bytes, self.code, self.explanation, limit)
    }

    fn record(&mut self, section: Section, skipped: usize, kind: u16, life: u32, data: &[u8]) {
        // The asked name begins behind the header; of 255 bytes, its end can be pointed to as well.
        let (Ok(place), Ok(length)) = (u16::try_from(HEADER + skipped), u16::try_from(data.len())) else { return };
        let owner = u16::from(POINTER) << 8 | place;
        // Nobody gets more than this in any case.
        if self.bytes.len() + 12 + data.len() > LONGEST {
            set_truncated(&mut self.bytes);
            return;
        }
        put_u16(&mut self.bytes, owner);
        put_u16(&mut self.bytes, kind);
        put_u16(&mut self.bytes, IN);
        self.bytes.extend_from_slice(&life.to_be_bytes());
        put_u16(&mut self.bytes, length);
        self.bytes.extend_from_slice(data);
        add_to_count(&mut self.bytes, section);
    }
}

/// Writes a question for a server.
pub(super) fn ask(id: u16, question: &Question, manner: Manner, with_edns: bool) -> Vec<u8> {
    let checking = if manner.checking_disabled { flag::CHECKING_DISABLED } else { 0 };
    let mut bytes = Vec::with_capacity(HEADER + question.name.wire().len() + 4 + OPT_LENGTH);
    put_words(&mut bytes, &[id, flag::RECURSION_DESIRED | checking, 1, 0, 0, u16::from(with_edns)]);
    question.write(&mut bytes);
    if with_edns {
        bytes.push(0);
        put_u16(&mut bytes, kind::OPT);
        put_u16(&mut bytes, LARGE_DATAGRAM);
        put_u16(&mut bytes, 0);
        put_u16(&mut bytes, if manner.wants_signatures { 1 << 15 } else { 0 });
        put_u16(&mut bytes, 0);
    }
    bytes
}

/// A server's whole answer, without what EDNS had to say between it and this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer(Box<[u8]>);

/// What a server sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The answer to what it was asked.
    Answer(Answer),
    /// There is more, for those who connect.
    Truncated,
    /// It will not, or cannot.
    Failed(Failed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It may not know EDNS, and answer who does without (RFC 6891, 7).
    Misunderstood,
    Otherwise,
}

impl Answer {
    /// Reads what came as the answer to a question; `None` where it is not that, or not whole.
    pub(super) fn read(message: &[u8], id: u16, question: &Question) -> Option<Said> {
        let flags = u16_at(message, 2)?;
        let is_answer = u16_at(message, 0)? == id && flags & (flag::RESPONSE | flag::OPCODE) == flag::RESPONSE;
        if !is_answer {
            return None;
        }
        let code = flags & flag::CODE;
        let misunderstood = [Code::FormErr as u16, Code::NotImp as u16].contains(&code);
        // A server that does not understand may leave the question out.
        if misunderstood && u16_at(message, 4)? == 0 {
            return Some(Said::Failed(Failed::Misunderstood));
        }
        let (theirs, at) = Question::read(message, HEADER).filter(|_| u16_at(message, 4) == Some(1))?;
        // Written out, as it was asked: names that point to it are to stay names when the case of its letters changes.
        let is_plain = at == HEADER + theirs.name.wire().len() + 4;
        if !theirs.is_same(question) || !is_plain {
            return None;
        }
        if flags & flag::TRUNCATED != 0 {
            return Some(Said::Truncated);
        }
        let mut end = at;
        let mut extended = 0;
        let mut additional = 0_u16;
        let mut is_past_edns = false;
        let mut records = Vec::new();
        for record in Records::behind(message, at) {
            let record = record?;
            records.push((record.life_at, record.data.end));
            // It is an addition (RFC 6891, 6.1.1): the other sections have as many records as is said.
            if record.kind == kind::OPT && record.section != Section::Additional {
                return None;
            }
            // Whatever is behind it was an addition, too, and is not missed.
            if record.kind == kind::OPT {
                is_past_edns = true;
                extended = record.life.to_be_bytes()[0];
            }
            if !is_past_edns {
                end = record.data.end;
                additional += u16::from(record.section == Section::Additional);
            }
        }
        if !keeps_its_names(message, at, &records) {
            return None;
        }
        let is_final = extended == 0 && [Code::NoError as u16, Code::NxDomain as u16].contains(&code);
        if !is_final {
            return Some(Said::Failed(if misunderstood { Failed::Misunderstood } else { Failed::Otherwise }));
        }
        let mut bytes = message.get(..end)?.to_vec();
        set_u16(&mut bytes, 10, additional);
        Some(Said::Answer(Self(bytes.into())))
    }

    pub(super) fn length(&self) -> usize {
        self.0.len()
    }

    /// Its records; that there is no half one was seen when it was read.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        let at = Question::read(&self.0, HEADER).map_or(self.0.len(), |(_, at)| at);
        Records::behind(&self.0, at).flatten()
    }

    /// For how many seconds it may be used again: as long as its shortest record lives; where it says that there is
    /// nothing, as long as the zone says (RFC 2308, 5), and not at all where that says nothing.
    pub(super) fn life(&self) -> u32 {
        let nothing = self.records().find(|record| (record.section, record.kind) == (Section::Authority, kind::SOA));
        let has_answer = self.records().any(|record| record.section == Section::Answer);
        let shortest = self.records().map(|record| record.life).min().unwrap_or(0);
        let is_name = u16_at(&self.0, 2).unwrap_or(0) & flag::CODE == Code::NoError as u16;
        match nothing {
            _ if has_answer && is_name => shortest,
            Some(record) => {
                let least = record.data.end.checked_sub(4).and_then(|at| u32_at(&self.0, at)).unwrap_or(0);
                shortest.min(least)
            }
            None => 0,
        }
    }

    /// Whether it says that there is nothing, or no such name.
    pub(super) fn says_nothing(&self) -> bool {
        !self.records().any(|record| record.section == Section::Answer)
    }

    /// The addresses that it gives for what was asked, with their lives.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        self.records().filter(|record| (record.section, record.class) == (Section::Answer, IN)).filter_map(|record| {
            let data = self.0.get(record.data)?;
            let address = match record.kind {
                kind::A => IpAddr::from(<[u8; 4]>::try_from(data).ok()?),
                kind::AAAA => IpAddr::from(<[u8; 16]>::try_from(data).ok()?),
                _ => return None,
            };
            Some((address, record.life))
        })
    }
}

/// The parts of a message behind its question, in order; the number is that of the header's word that counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Answer = 3,
    Authority = 4,
    Additional = 5,
}

/// Where the parts of a record are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) section: Section,
    pub(super) kind: u16,
    class: u16,
    is_of_root: bool,
    life_at: usize,
    pub(super) life: u32,
    pub(super) data: Range<usize>,
}

/// Walks the records of a message: `None` is one that is not whole, and nothing comes behind it.
/// Whether names are names whatever is written into the header, and into how long records live: both change on the way, and a name
/// may lead there.
fn keeps_its_names(message: &[u8], at: usize, records: &[(usize, usize)]) -> bool {
    let mut other = message.to_vec();
    let lives = records.iter().map(|(life_at, _)| *life_at..*life_at + 4);
    for range in lives.chain(std::iter::once(0..HEADER)) {
        if let Some(bytes) = other.get_mut(range) {
            // A pointer to where nothing is yet.
            bytes.fill(u8::MAX);
        }
    }
    let again = Records { message: &other, ..Records::behind(message, at) };
    again.map(|record| record.map(|record| (record.life_at, record.data.end))).eq(records.iter().copied().map(Some))
}

struct Records<'a> {
    message: &'a [u8],
    at: usize,
    left: [(Section, u16); 3],
    is_broken: bool,
}

impl<'a> Records<'a> {
    fn behind(message: &'a [u8], at: usize) -> Self {
        let count = |section: Section| (section, u16_at(message, 2 * section as usize).unwrap_or(0));
        let left = [Section::Answer, Section::Authority, Section::Additional].map(count);
        Self { message, at, left, is_broken: false }
    }

    fn read(&mut self, section: Section) -> Option<Record> {
        let start = self.at;
        let (name, at) = Name::read(self.message, start)?;
        let life = u32_at(self.message, at + 4)?;
        let length = u16_at(self.message, at + 8)?;
        let data = at + 10..at + 10 + usize::from(length);
        self.message.get(data.clone())?;
        self.at = data.end;
        Some(Record {
            section,
            kind: u16_at(self.message, at)?,
            class: u16_at(self.message, at + 2)?,
            is_of_root: name.is_root(),
            life_at: at + 4,
            // RFC 2181, 8: what has the first bit set is taken for 0.
            life: if life > i32::MAX.cast_unsigned() { 0 } else { life },
            data,
        })
    }
}

impl Iterator for Records<'_> {
    type Item = Option<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken {
            return None;
        }
        let (section, left) = self.left.iter_mut().find(|(_, left)| *left > 0)?;
        *left -= 1;
        let section = *section;
        let record = self.read(section);
        self.is_broken = record.is_none();
        Some(record)
    }
}

/// Cuts a message between two records, so that it has no more than so many bytes, and says in it that there is more; not
/// where only additions are missing (RFC 2181, 9).
fn cut(mut bytes: Vec<u8>, limit: usize) -> Vec<u8> {
    if bytes.len() <= limit {
        return bytes;
    }
    let Some((_, at)) = Question::read(&bytes, HEADER) else { return bytes };
    let mut counts = [0_u16; 3];
    let mut end = at;
    let mut missing = None;
    for record in Records::behind(&bytes, at).flatten() {
        if record.data.end > limit {
            missing = Some(record.section);
            break;
        }
        counts[record.section as usize - Section::Answer as usize] += 1;
        end = record.data.end;
    }
    bytes.truncate(end);
    for (index, count) in counts.into_iter().enumerate() {
        set_u16(&mut bytes, 2 * (Section::Answer as usize + index), count);
    }
    if missing.is_some_and(|section| section != Section::Additional) {
        set_truncated(&mut bytes);
    }
    bytes
}

fn set_truncated(bytes: &mut [u8]) {
    let flags = u16_at(bytes, 2).unwrap_or(0) | flag::TRUNCATED;
    set_u16(bytes, 2, flags);
}

fn add_to_count(bytes: &mut [u8], section: Section) {
    let at = 2 * section as usize;
    let count = u16_at(bytes, at).unwrap_or(0).saturating_add(1);
    set_u16(bytes, at, count);
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn set_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn put_words(bytes: &mut Vec<u8>, words: &[u16]) {
    for word in words {
        put_u16(bytes, *word);
    }
}

fn put_u16(bytes: &mut Vec<u8>, value: u16) {
    bytes.extend_from_slice(&value.to_be_bytes());
}

/// Reads bytes as a question and as an answer, and passes on what was understood. For the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_any(bytes: &[u8]) {
    let question = Question::read(bytes, HEADER).map(|(question, _)| question);
    let answer = question.as_ref().and_then(|question| {
        let id = u16_at(bytes, 0)?;
        match Answer::read(bytes, id, question)? {
            Said::Answer(answer) => Some(answer),
            Said::Truncated | Said::Failed(_) => None,
        }
    });
    if let (Some(answer), Some(question)) = (answer, question) {
        assert!(answer.length() <= bytes.len() && answer.addresses().count() <= answer.records().count());
        let _ = (answer.life(), answer.says_nothing());
        let asked = ask(1, &question, Manner { wants_signatures: true, checking_disabled: false }, true);
        let query = Query::read(&asked).expect("what was asked can be read");
        for limit in [DATAGRAM, usize::from(LARGE_DATAGRAM), LONGEST] {
            let passed = query.pass_on(&answer, 7, u32::MAX, limit);
            assert!(passed.len() <= limit.max(HEADER + question.name.wire().len() + 4 + OPT_LENGTH));
            let again = Answer::read(&passed, 1, &question);
            assert!(matches!(again, Some(Said::Answer(_) | Said::Truncated)), "{again:?}");
        }
    }
    match Query::read(bytes) {
        Ok(query) => {
            let reply = query.reply(Code::Refused).explained(Explanation::Prohibited).finish(DATAGRAM);
            assert!(reply.len() <= DATAGRAM);
        }
        Err(Unfit::Answer(reply)) => assert_eq!(reply.len(), HEADER),
        Err(Unfit::Silence) => {}
    }
}

#[cfg(test)]
mod tests;
