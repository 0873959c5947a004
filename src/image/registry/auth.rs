//! Challenges and tokens: what a registry wants to see before it answers (RFC 7235, RFC 6750, distribution's token
//! specification).
//!
//! Parses and decides; the requests are made by `client`. A realm is a URL that a registry names, and so a place to which
//! it would like our credentials sent: [`may_have_credentials`] says whether it gets them (CVE-2020-15157).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::spec::load::parse_json;

use super::origin::Origin;

/// How long a token lives whose registry does not say so: the token specification's default.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(1);

/// A token is not used in its last seconds: it could end on the way.
const LIFETIME_MARGIN: Duration = Duration::from_secs(5);

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Reads the `WWW-Authenticate` headers of an answer; takes Bearer over Basic, as the token may be narrower.
    pub fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Result<Option<Self>> {
        let mut found = None;
        for header in headers {
            for (scheme, parameters) in challenges(header) {
                let parameter = |name: &str| {
                    parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
                };
                if scheme.eq_ignore_ascii_case("bearer") {
                    let realm = parameter("realm")
                        .ok_or_else(|| Error::invalid("WWW-Authenticate: the challenge Bearer has no realm"))?;
                    return Ok(Some(Self::Bearer { realm, service: parameter("service"), scope: parameter("scope") }));
                }
                if scheme.eq_ignore_ascii_case("basic") {
                    found = Some(Self::Basic);
                }
            }
        }
        Ok(found)
    }
}

/// Splits a header into challenges: a scheme, and its parameters.
fn challenges(header: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let word = &rest[..end];
        if word.is_empty() {
            return found;
        }
        rest = rest[end..].trim_start_matches([' ', '\t']);
        let Some(after) = rest.strip_prefix('=') else {
            found.push((word.to_owned(), Vec::new()));
            continue;
        };
        let Some((value, after)) = value(after.trim_start_matches([' ', '\t'])) else { return found };
        rest = after;
        if let Some((_, parameters)) = found.last_mut() {
            parameters.push((word.to_owned(), value));
        }
    }
}

/// Reads a token or a quoted string, and gives what follows.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[place + 1..])),
            '\\' => value.push(letters.next()?.1),
            _ => value.push(letter),
        }
    }
    None
}

/// A bearer token, and when it ends.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) text: String,
    ends: Instant,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Token {
    /// Reads what a token server answers.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let answer: Answer = parse_json(bytes)?;
        let text = answer.token.or(answer.access_token).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Error::invalid("the answer has no token"))?;
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid("the token cannot stand in a header"));
        }
        let lifetime = answer.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs).max(DEFAULT_LIFETIME);
        let ends = Instant::now().checked_add(lifetime).unwrap_or_else(Instant::now);
        Ok(Self { text, ends })
    }

    /// Says whether the token may still be used.
    pub(crate) fn is_fresh(&self) -> bool {
        self.ends.saturating_duration_since(Instant::now()) > LIFETIME_MARGIN
    }
}

/// Decides whether a realm is the registry's own: then it may see the credentials for that registry.
///
/// It is, if it is the same host (on any port), or another name in the same domain (`auth.docker.io` and
/// `registry-1.docker.io`). A realm must be https, unless the registry itself is spoken to in plain HTTP.
pub(crate) fn may_have_credentials(registry: &Origin, realm: &Origin) -> bool {
    if !realm.is_https && registry.is_https {
        return false;
    }
    registry.host == realm.host || domain(&registry.host).is_some_and(|ours| domain(&realm.host) == Some(ours))
}

/// Gives the part of a host name that one owner has registered, as well as it can be told without the public suffix
/// list: two labels, or three where the last two look like a country's `co.uk`. None for addresses and bare names.
fn domain(host: &str) -> Option<&str> {
    if host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let labels: Vec<&str> = host.split('.').collect();
    let count = labels.len();
    if count < 2 {
        return None;
    }
    let is_country = labels[count - 1].len() == 2 && labels[count - 2].len() <= 3;
    // Clouds give out names below these: two of them are two owners.
    let is_shared = SHARED_DOMAINS.iter().any(|shared| host == *shared || host.ends_with(&format!(".{shared}")));
    if is_shared {
        return Some(host);
    }
    let wanted = if is_country { 3 } else { 2 };
    let start: usize = labels[..count.checked_sub(wanted)?].iter().map(|label| label.len() + 1).sum();
    Some(&host[start..])
}

/// Domains below which names belong to different owners.
const SHARED_DOMAINS: &[&str] = &[
    "amazonaws.com",
    "azurecr.io",
    "azurewebsites.net",
    "cloudapp.net",
    "cloudfront.net",
    "github.io",
    "gitlab.io",
    "googleusercontent.com",
    "herokuapp.com",
    "pkg.dev",
    "run.app",
    "windows.net",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Option<Challenge> {
        Challenge::parse(std::iter::once(header)).unwrap()
    }

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
                scope: scope.map(Into::into),
            })
        };
        for (header, expected) in [
            (r#"Basic realm="x""#, Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#,
                bearer("https://a/t", Some("s"), Some("repository:x:pull,push")),
            ),
            (r#"bearer Realm = "https://a/t" , service=s"#, bearer("https://a/t", Some("s"), None)),
            (r#"Basic realm="a,b", Bearer realm="c""#, bearer("c", None, None)),
            (r#"Bearer realm="a\"b""#, bearer("a\"b", None, None)),
            ("Negotiate", None),
            ("", None),
            (r#"Bearer realm="open"#, None),
        ] {
            match Challenge::parse(std::iter::once(header)) {
                Ok(found) => assert_eq!(found, expected, "{header}"),
                Err(_) => assert_eq!(expected, None, "{header}"),
            }
        }
        assert_eq!(parse("Basic, Negotiate"), Some(Challenge::Basic));
        assert!(Challenge::parse(std::iter::once("Bearer service=x")).is_err());
    }

    #[test]
    fn tokens_are_read() {
        assert_eq!(Token::parse(br#"{"token":"a","expires_in":300}"#).unwrap().text, "a");
        assert_eq!(Token::parse(br#"{"access_token":"b","expires_in":1}"#).unwrap().text, "b");
        assert!(Token::parse(br#"{"token":"a"}"#).unwrap().is_fresh());
        assert!(Token::parse(br#"{"token":"a","expires_in":18446744073709551615}"#).is_ok());
        for text in ["{}", r#"{"token":""}"#, r#"{"token":"a\r\nX: y"}"#, "[]", "nothing"] {
            assert!(Token::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_stay_in_their_domain() {
        for (registry, realm, expected) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
            ("https://ghcr.io", "https://ghcr.io/token", true),
            ("https://registry.gitlab.example.com", "https://gitlab.example.com/jwt/auth", true),
            ("https://quay.io", "https://quay.io.evil.com/", false),
            ("https://quay.io", "https://evil.com/?quay.io", false),
            ("https://a.co.uk", "https://b.co.uk", false),
            ("https://x.a.co.uk", "https://y.a.co.uk", true),
            ("https://a.azurecr.io", "https://b.azurecr.io", false),
            ("https://quay.io", "http://quay.io/", false),
            ("http://localhost:5000", "http://localhost:5001/token", true),
            ("http://127.0.0.1:5000", "http://127.0.0.2:5000/token", false),
            ("https://10.0.0.1", "https://11.0.0.1", false),
            ("https://[::1]:5000", "https://[::1]:5001", true),
            ("https://registry", "https://auth", false),
        ] {
            let (registry, realm) = (Origin::of_url(registry).unwrap(), Origin::of_url(realm).unwrap());
            assert_eq!(may_have_credentials(&registry, &realm), expected, "{registry} {realm}");
        }
    }
}
