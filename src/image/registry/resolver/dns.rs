//! Questions to name servers, over UDP and, where an answer does not fit, over TCP (RFC 1035, RFC 7766).
//!
//! An answer counts only if it comes from the server's address to the port of this very question, with its random number and
//! with the question in it: four things that somebody off the path would have to guess (RFC 5452).

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::Failure;
use crate::support::resolv_conf::Servers;

/// A datagram without extensions has 512 bytes; some servers send more all the same.
const DATAGRAM_BYTES: usize = 4096;

/// Aliases that lead to a name's addresses.
const ALIASES: usize = 16;

/// Datagrams that are looked at while one is waited for: others are noise, or an attack.
const STRAYS: usize = 64;

const TYPES: [RecordType; 2] = [RecordType::A, RecordType::AAAA];

/// What one server says.
type Answer = Result<Vec<IpAddr>, String>;

/// Asks for both kinds of addresses of a name; gives none where the servers say that there are none.
pub(super) fn query(servers: &Servers, name: &str, deadline: Instant) -> Result<Vec<IpAddr>, Failure> {
    let mut name = Name::from_ascii(name).map_err(|error| Failure::Other(error.to_string()))?;
    name.set_fqdn(true);
    let mut answers: [Option<Vec<IpAddr>>; 2] = [None, None];
    let mut why = None;
    for _ in 0..servers.attempts {
        for server in &servers.addresses {
            let until = deadline.min(Instant::now() + servers.patience);
            let Some(until) = Some(until).filter(|until| *until > Instant::now()) else { return finish(answers, None) };
            let missing: Vec<usize> = (0..TYPES.len()).filter(|index| answers[*index].is_none()).collect();
            match ask(*server, &name, &missing, until, servers.only_tcp) {
                Ok(found) => {
                    for (index, answer) in found {
                        match answer {
                            Ok(addresses) => answers[index] = Some(addresses),
                            Err(text) => why = Some(format!("{server}: {text}")),
                        }
                    }
                }
                Err(error) => why = Some(format!("{server}: {error}")),
            }
            if answers.iter().all(Option::is_some) {
                return finish(answers, None);
            }
        }
    }
    finish(answers, why)
}

/// One kind of addresses is enough; that there are none takes both.
fn finish(answers: [Option<Vec<IpAddr>>; 2], why: Option<String>) -> Result<Vec<IpAddr>, Failure> {
    let is_complete = answers.iter().all(Option::is_some);
    let addresses: Vec<IpAddr> = answers.into_iter().flatten().flatten().collect();
    match why {
        _ if is_complete || !addresses.is_empty() => Ok(addresses),
        Some(why) => Err(Failure::Other(why)),
        None => Err(Failure::Timeout),
    }
}

/// Asks one server for the kinds that are missing, all at once. What it does not answer in time is left out.
fn ask(
    server: SocketAddr,
    name: &Name,
    missing: &[usize],
    until: Instant,
    only_tcp: bool,
) -> std::io::Result<Vec<(usize, Answer)>> {
    let mut found = Vec::new();
    let mut waiting = Vec::new();
    for index in missing {
        let question = Question::new(name, TYPES[*index])?;
        if only_tcp {
            found.push((*index, over_tcp(server, &question, until)?));
            continue;
        }
        // A socket each: the kernel chooses a random port, and takes datagrams from the server's address alone.
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        socket.send(&question.bytes)?;
        waiting.push((*index, question, socket));
    }
    for (index, question, socket) in waiting {
        let answer = match receive(&socket, &question, until) {
            Ok(None) => continue,
            Ok(Some(Reply::Whole(answer))) => Ok(answer),
            Ok(Some(Reply::Truncated)) => over_tcp(server, &question, until),
            Err(error) => Err(error),
        };
        // The other kind may have been answered.
        found.push((index, answer.unwrap_or_else(|error| Err(error.to_string()))));
    }
    if found.is_empty() {
        return Err(std::io::Error::new(ErrorKind::TimedOut, "no answer in time"));
    }
    Ok(found)
}

/// Waits for the answer to a question, and for no other.
fn receive(socket: &UdpSocket, question: &Question, until: Instant) -> std::io::Result<Option<Reply>> {
    let mut bytes = [0; DATAGRAM_BYTES];
    for _ in 0..STRAYS {
        let Some(rest) = rest(until) else { return Ok(None) };
        socket.set_read_timeout(Some(rest))?;
        match socket.recv(&mut bytes) {
            Ok(length) => {
                if let Some(reply) = question.read(&bytes[..length]) {
                    return Ok(Some(reply));
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Asks over a connection, where a message has its length before it.
fn over_tcp(server: SocketAddr, question: &Question, until: Instant) -> std::io::Result<Answer> {
    let late = || std::io::Error::new(ErrorKind::TimedOut, "no answer in time");
    let mut stream = TcpStream::connect_timeout(&server, rest(until).ok_or_else(late)?)?;
    stream.set_write_timeout(Some(rest(until).ok_or_else(late)?))?;
    let length = u16::try_from(question.bytes.len()).expect("a question has at most 300 bytes").to_be_bytes();
    stream.write_all(&[&length, &question.bytes[..]].concat())?;
    let mut length = [0; 2];
    read_all(&mut stream, &mut length, until)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    read_all(&mut stream, &mut bytes, until)?;
    match question.read(&bytes) {
        Some(Reply::Whole(answer)) => Ok(answer),
        _ => Err(std::io::Error::new(ErrorKind::InvalidData, "not an answer to what was asked")),
    }
}

/// Fills a buffer, however slowly the bytes come, but not longer than until then.
fn read_all(stream: &mut TcpStream, mut bytes: &mut [u8], until: Instant) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let rest = rest(until).ok_or_else(|| std::io::Error::new(ErrorKind::TimedOut, "no answer in time"))?;
        stream.set_read_timeout(Some(rest))?;
        match stream.read(bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn rest(until: Instant) -> Option<Duration> {
    until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
}

/// A question, and how it is sent.
struct Question {
    number: u16,
    query: Query,
    bytes: Vec<u8>,
}

/// What a message says that answers a question.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Whole(Answer),
    Truncated,
}

impl Question {
    fn new(name: &Name, kind: RecordType) -> std::io::Result<Self> {
        let mut number = [0; 2];
        rustix::rand::getrandom(&mut number[..], rustix::rand::GetRandomFlags::empty())?;
        let number = u16::from_ne_bytes(number);
        let query = Query::query(name.clone(), kind);
        let mut message = Message::new(number, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        let bytes =
            message.to_vec().map_err(|error| std::io::Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        Ok(Self { number, query, bytes })
    }

    /// Reads a message; `None` where it is no answer to this question.
    fn read(&self, bytes: &[u8]) -> Option<Reply> {
        let message = Message::from_vec(bytes).ok()?;
        let metadata = &message.metadata;
        let [query] = &message.queries[..] else { return None };
        // Names are equal whatever their case; some servers write them in their own.
        let is_ours = metadata.id == self.number
            && metadata.message_type == MessageType::Response
            && metadata.op_code == OpCode::Query
            && query.name().to_lowercase() == self.query.name().to_lowercase()
            && query.query_type() == self.query.query_type()
            && query.query_class() == DNSClass::IN;
        if !is_ours {
            return None;
        }
        if metadata.truncation {
            return Some(Reply::Truncated);
        }
        Some(Reply::Whole(match metadata.response_code {
            ResponseCode::NoError => Ok(self.addresses(&message)),
            ResponseCode::NXDomain => Ok(Vec::new()),
            code => Err(format!("it says {code}")),
        }))
    }

    /// Gives the addresses of the name, or of what it is an alias of. Records of other names are none of ours.
    fn addresses(&self, message: &Message) -> Vec<IpAddr> {
        let mut name = self.query.name().to_lowercase();
        for _ in 0..ALIASES {
            let of_name = || {
                let records = message.answers.iter().filter(|record| record.dns_class == DNSClass::IN);
                records.filter(|record| record.name.to_lowercase() == name)
            };
            let addresses: Vec<IpAddr> = of_name()
                .filter_map(|record| match (&record.data, self.query.query_type()) {
                    (RData::A(address), RecordType::A) => Some(IpAddr::V4(address.0)),
                    (RData::AAAA(address), RecordType::AAAA) => Some(IpAddr::V6(address.0)),
                    _ => None,
                })
                .collect();
            if !addresses.is_empty() {
                return addresses;
            }
            let alias = of_name().find_map(|record| match &record.data {
                RData::CNAME(alias) => Some(alias.0.to_lowercase()),
                _ => None,
            });
            match alias {
                Some(alias) => name = alias,
                None => break,
            }
        }
        Vec::new()
    }
}

/// Reads a message as the answer to a question for a name; for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(super) fn read_any(bytes: &[u8]) -> usize {
    let query = |message: &Message| message.queries.first().cloned();
    let Some(query) = Message::from_vec(bytes).ok().as_ref().and_then(query) else { return 0 };
    let number = u16::from_be_bytes([bytes[0], bytes[1]]);
    match (Question { number, query, bytes: Vec::new() }).read(bytes) {
        Some(Reply::Whole(Ok(addresses))) => addresses.len(),
        _ => 0,
    }
}
