use hickory_proto::op::{
    DnsResponse, Edns as TheirEdns, Message, MessageType, OpCode, Query as TheirQuery, ResponseCode,
};
use hickory_proto::rr::rdata::{CNAME, SOA};
use hickory_proto::rr::{Name as TheirName, RData, Record as TheirRecord, RecordType};

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn theirs(text: &str) -> TheirName {
    TheirName::from_ascii(format!("{text}.")).unwrap()
}

fn question(text: &str, kind: u16) -> Question {
    Question { name: name(text), kind, class: IN }
}

/// A question as another program writes it.
fn sent(text: &str, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(TheirQuery::query(theirs(text), RecordType::A));
    if let Some(size) = edns {
        let mut edns = TheirEdns::new();
        edns.set_max_payload(size).set_dnssec_ok(true);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// A server's answer to a question for `reg.example`, as another program writes it: compressed.
fn answer(change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.metadata.recursion_available = true;
    message.add_query(TheirQuery::query(theirs("reg.example"), RecordType::A));
    change(&mut message);
    message.to_vec().unwrap()
}

fn record(owner: &str, life: u32, data: RData) -> TheirRecord {
    TheirRecord::from_rdata(theirs(owner), life, data)
}

fn v4(last: u8) -> RData {
    RData::A(std::net::Ipv4Addr::new(10, 0, 0, last).into())
}

fn soa(minimum: u32) -> RData {
    RData::SOA(SOA::new(theirs("ns.example"), theirs("hostmaster.example"), 1, 2, 3, 4, minimum))
}

fn taken(message: &[u8]) -> Answer {
    match Answer::read(message, 7, &question("REG.example", kind::A)) {
        Some(Said::Answer(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn questions_are_read_as_others_write_them() {
    let query = Query::read(&sent("Web.Net", None)).unwrap();
    assert_eq!((query.id, &query.question), (7, &question("Web.Net", kind::A)));
    assert!(query.wants_recursion() && !query.is_of_the_future());
    assert_eq!((query.datagram(), query.manner().wants_signatures), (512, false));
    for (said, taken) in [(0, 512), (512, 512), (1000, 1000), (1232, 1232), (4096, 1232)] {
        let query = Query::read(&sent("web", Some(said))).unwrap();
        assert_eq!((query.datagram(), query.manner().wants_signatures), (taken, true), "{said}");
    }
    let asked = ask(9, &question("web.net", kind::AAAA), query.manner(), true);
    let read = Message::from_vec(&asked).unwrap();
    assert_eq!((read.metadata.id, read.metadata.recursion_desired), (9, true));
    assert_eq!((read.queries[0].name(), read.queries[0].query_type()), (&theirs("web.net"), RecordType::AAAA));
    assert_eq!(read.edns.unwrap().max_payload(), LARGE_DATAGRAM);
}

#[test]
fn what_cannot_be_answered_is_refused_in_kind() {
    let good = sent("web", Some(1232));
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let with_records = |count: u8| {
        let mut bytes = good.clone();
        bytes[11] = count;
        bytes.extend_from_slice(&good[good.len() - OPT_LENGTH..]);
        bytes
    };
    for (what, bytes, code) in [
        ("nothing", Vec::new(), None),
        ("half a header", good[..11].to_vec(), None),
        ("an answer", changed(2, 0x81), None),
        ("another operation", changed(2, 0x29), Some(Code::NotImp)),
        ("no question", changed(5, 0), Some(Code::FormErr)),
        ("two questions", changed(5, 2), Some(Code::FormErr)),
        ("a record too few", changed(11, 2), Some(Code::FormErr)),
        ("a question cut off", good[..14].to_vec(), Some(Code::FormErr)),
        ("EDNS twice", with_records(2), Some(Code::FormErr)),
        ("EDNS of another name", changed(good.len() - OPT_LENGTH, 1), Some(Code::FormErr)),
    ] {
        match (Query::read(&bytes).map(drop), code) {
            (Err(Unfit::Silence), None) => {}
            (Err(Unfit::Answer(answer)), Some(code)) => {
                assert_eq!(answer.len(), HEADER, "{what}");
                assert_eq!(answer[..2], bytes[..2], "{what}");
                assert_eq!((answer[2] & 0x80, answer[3] & 15), (0x80, code as u8), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    // The life of the record has the version.
    let query = Query::read(&changed(good.len() - 5, 1)).unwrap();
    assert!(query.is_of_the_future());
    let reply = Message::from_vec(&query.reply(Code::BadVers).finish(512)).unwrap();
    // 16 has two names, the other for signed messages.
    assert_eq!(u16::from(reply.metadata.response_code), Code::BadVers as u16);
}

#[test]
fn answers_are_read_by_others() {
    let query = Query::read(&sent("Web.Net", Some(1232))).unwrap();
    let mut reply = query.reply(Code::NoError).authoritative();
    reply.address("10.0.0.1".parse().unwrap(), 5);
    reply.address("fd00::1".parse().unwrap(), 5);
    reply.pointer(&name("other.net"), 6);
    reply.nothing_for(5, 1);
    let bytes = reply.explained(Explanation::Blocked).finish(512);
    let read = Message::from_vec(&bytes).unwrap();
    let flags = (read.metadata.authoritative, read.metadata.recursion_available, read.metadata.truncation);
    assert_eq!((flags, read.metadata.id), ((true, true, false), 7));
    let records: Vec<String> = read.answers.iter().map(ToString::to_string).collect();
    assert_eq!(records, ["Web.Net. 5 IN A 10.0.0.1", "Web.Net. 5 IN AAAA fd00::1", "Web.Net. 6 IN PTR other.net."]);
    assert_eq!(read.authorities[0].name.to_string(), "Net.");
    assert!(matches!(&read.authorities[0].data, RData::SOA(soa) if soa.minimum == 5), "{:?}", read.authorities);
    let option = read.edns.unwrap().options().as_ref().to_vec();
    assert_eq!(option.len(), 1, "why it is refused");
    // For a name of one label, the zone above is the root.
    let query = Query::read(&sent("web", None)).unwrap();
    let mut reply = query.reply(Code::NxDomain);
    reply.nothing_for(5, 1);
    let read = DnsResponse::from_message(Message::from_vec(&reply.finish(512)).unwrap()).unwrap();
    assert_eq!((read.authorities[0].name.to_string(), read.edns.is_none()), (".".to_owned(), true));
    assert_eq!(read.negative_ttl(), Some(5));
}

#[test]
fn what_is_too_long_is_cut_between_records() {
    let query = Query::read(&sent("web", None)).unwrap();
    let mut reply = query.reply(Code::NoError);
    (0..100).for_each(|last| reply.address([10, 0, 0, last].into(), 5));
    let bytes = reply.finish(query.datagram());
    let read = Message::from_vec(&bytes).unwrap();
    assert!(read.metadata.truncation && bytes.len() <= 512, "{}", bytes.len());
    assert_eq!(read.answers.len(), (512 - HEADER - 9) / 16);

    let query = Query::read(&sent("web", Some(1232))).unwrap();
    let mut reply = query.reply(Code::NoError);
    (0..100).for_each(|last| reply.address([10, 0, 0, last].into(), 5));
    let bytes = reply.finish(query.datagram());
    assert!(bytes.len() <= 1232 && Message::from_vec(&bytes).unwrap().edns.is_some());
    let mut reply = query.reply(Code::NoError);
    (0..5000).for_each(|_| reply.address([10, 0, 0, 1].into(), 5));
    let bytes = reply.finish(LONGEST);
    assert!(bytes.len() <= LONGEST && Message::from_vec(&bytes).unwrap().metadata.truncation);
}

#[test]
fn others_answers_are_passed_on_in_the_words_of_who_asks() {
    let message = answer(|message| {
        message.metadata.authoritative = true;
        message.add_answer(record("reg.example", 300, RData::CNAME(CNAME(theirs("a.reg.example")))));
        message.add_answer(record("a.reg.example", 60, v4(1)));
        message.add_additional(record("b.example", 9, v4(2)));
        message.set_edns(TheirEdns::new());
    });
    let answer = taken(&message);
    assert_eq!((answer.life(), answer.says_nothing()), (9, false));
    assert_eq!(answer.addresses().collect::<Vec<_>>(), [("10.0.0.1".parse().unwrap(), 60)], "the addition is none");
    let mut bytes = sent("ReG.eXample", None);
    bytes[0] = 0x55;
    let query = Query::read(&bytes).unwrap();
    let read = Message::from_vec(&query.pass_on(&answer, 50, u32::MAX, 512)).unwrap();
    assert_eq!((read.metadata.id, read.metadata.authoritative, read.edns.is_none()), (0x5507, true, true));
    assert!(read.queries[0].name().eq_case(&theirs("ReG.eXample")));
    let lives: Vec<u32> = read.answers.iter().chain(&read.additionals).map(|record| record.ttl).collect();
    assert_eq!(lives, [250, 10, 0]);
    assert!(read.answers[1].name.eq_case(&theirs("a.ReG.eXample")), "it points to the question");
    // The addition goes first, and is missed by nobody.
    let short = query.pass_on(&answer, 0, u32::MAX, answer.length() - 1);
    let read = Message::from_vec(&short).unwrap();
    assert_eq!((read.answers.len(), read.additionals.len(), read.metadata.truncation), (2, 0, false));
    let query = Query::read(&sent("reg.example", Some(1232))).unwrap();
    let read = Message::from_vec(&query.pass_on(&answer, 0, u32::MAX, 1232)).unwrap();
    assert_eq!((read.answers.len(), read.edns.unwrap().max_payload()), (2, 1232));
}

#[test]
fn what_is_not_the_answer_is_none() {
    let asked = question("reg.example", kind::A);
    let good = answer(|message| {
        message.add_answer(record("reg.example", 300, v4(1)));
    });
    let read = |bytes: &[u8]| Answer::read(bytes, 7, &asked);
    assert!(matches!(read(&good), Some(Said::Answer(_))));
    let is_none = |what: &str, at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        assert_eq!(read(&bytes), None, "{what}");
    };
    is_none("another number", 1, 8);
    is_none("a question", 2, 0);
    is_none("another operation", 2, 0x90);
    is_none("another name", 13, b'x');
    is_none("another type", HEADER + 14, 28);
    is_none("another class", HEADER + 16, 3);
    is_none("no question", 5, 0);
    is_none("more records than there are", 7, 2);
    assert_eq!(read(&good[..good.len() - 1]), None, "half an answer");
    let with_code = |code| answer(|message| message.metadata.response_code = code);
    assert_eq!(read(&with_code(ResponseCode::ServFail)), Some(Said::Failed(Failed::Otherwise)));
    assert_eq!(read(&with_code(ResponseCode::FormErr)), Some(Said::Failed(Failed::Misunderstood)));
    assert_eq!(read(&good[..HEADER].iter().map(|byte| *byte & 0x87).collect::<Vec<_>>()), None);
    assert_eq!(read(&[0, 7, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Some(Said::Failed(Failed::Misunderstood)));
    assert_eq!(read(&answer(|message| message.metadata.truncation = true)), Some(Said::Truncated));
}

#[test]
fn how_long_nothing_is_remembered() {
    let life = |change: &dyn Fn(&mut Message)| {
        let answer = taken(&answer(change));
        (answer.life(), answer.says_nothing())
    };
    assert_eq!(life(&|_| ()), (0, true), "the zone does not say");
    let nothing = |message: &mut Message| {
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_authority(record("example", 900, soa(60)));
    };
    assert_eq!(life(&nothing), (60, true));
    assert_eq!(life(&|message| _ = message.add_authority(record("example", 30, soa(60)))), (30, true));
    assert_eq!(life(&|message| _ = message.add_answer(record("reg.example", 1 << 31, v4(1)))), (0, false));
}

#[test]
fn any_bytes_are_read() {
    let whole = answer(|message| {
        message.add_answer(record("reg.example", 300, RData::CNAME(CNAME(theirs("a.reg.example")))));
        message.add_answer(record("a.reg.example", 60, v4(1)));
        message.add_authority(record("example", 900, soa(60)));
        message.set_edns(TheirEdns::new());
    });
    for good in [whole, sent("reg.example", Some(1232))] {
        for at in 0..good.len() {
            check_any(&good[..at]);
            for byte in [0, 1, 0x3f, 0x40, 0x7f, 0xc0, 0xff, good[at] ^ 1, good[at].wrapping_add(1)] {
                let mut bytes = good.clone();
                bytes[at] = byte;
                check_any(&bytes);
            }
        }
    }
}
