//! Origins: scheme, host and port. Credentials belong to one, and no answer can carry them to another.
//!
//! URLs come from registries (redirects, upload locations, realms, pages), so they are read here, strictly, and once.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

use crate::error::{Error, Result};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub is_https: bool,
    /// Lower case, without a dot at its end; an IPv6 address is in brackets.
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// Reads `HOST[:PORT]`.
    pub fn new(authority: &str, is_https: bool) -> Result<Self> {
        Self::of_url(&format!("{}://{authority}", if is_https { "https" } else { "http" }))
    }

    /// Reads the origin of an absolute URL.
    pub fn of_url(url: &str) -> Result<Self> {
        Self::of(&parse(url)?)
    }

    fn of(uri: &Uri) -> Result<Self> {
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        if host.is_empty() {
            return Err(Error::invalid("the host is missing"));
        }
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Ok(Self { is_https, host, port })
    }

    /// Says whether this is the machine itself.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Makes an absolute URL of what an answer at `base` refers to; refuses what a registry has no honest use for.
    pub fn resolve(&self, base: &str, location: &str) -> Result<String> {
        let wrong = |why: &str| Error::invalid(format!("location {location:?}: {why}"));
        let absolute = if location.contains("://") {
            location.to_owned()
        } else if let Some(rest) = location.strip_prefix("//") {
            format!("{}://{rest}", if self.is_https { "https" } else { "http" })
        } else if location.starts_with('/') {
            format!("{self}{location}")
        } else {
            let path = base.split(['?', '#']).next().unwrap_or(base);
            let directory = path.rfind('/').map_or("", |slash| &path[..=slash]);
            format!("{directory}{location}")
        };
        let target = Self::of(&parse(&absolute)?)?;
        if self.is_https && !target.is_https {
            return Err(wrong("it leads from https to http"));
        }
        Ok(absolute)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.is_https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Says whether a host is the machine itself, by name or address.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn parse(url: &str) -> Result<Uri> {
    let wrong = |why: &str| Error::invalid(format!("URL {url:?}: {why}"));
    let uri: Uri = url.parse().map_err(|_| wrong("not a URL"))?;
    match uri.scheme_str() {
        Some("https" | "http") => {}
        _ => return Err(wrong("neither https nor http")),
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => Err(wrong("it holds a user's name")),
        Some(_) => Ok(uri),
        None => Err(wrong("the host is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_equal_where_the_server_is_the_same() {
        let origin = |url: &str| Origin::of_url(url).unwrap();
        assert_eq!(origin("https://A.io/x"), origin("https://a.io.:443/y?z"));
        assert_ne!(origin("https://a.io"), origin("http://a.io"));
        assert_ne!(origin("https://a.io"), origin("https://a.io:5000"));
        assert_eq!(origin("https://[::1]:5000/x").to_string(), "https://[::1]:5000");
        assert!(origin("http://[::1]:5000/x").is_loopback() && origin("http://127.1.2.3").is_loopback());
        for url in ["ftp://a", "https://u:p@a/", "https:///x", "//a/b", "/x", "", "file:///etc/passwd", "https://a b/"]
        {
            assert!(Origin::of_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn locations_are_resolved() {
        let (secure, plain) = (Origin::of_url("https://a.io").unwrap(), Origin::of_url("http://a.io:5000").unwrap());
        let base = "https://a.io/v2/x/blobs/uploads/?q=1";
        for (location, expected) in [
            ("/v2/y", "https://a.io/v2/y"),
            ("z?a=b", "https://a.io/v2/x/blobs/uploads/z?a=b"),
            ("https://b.io/y", "https://b.io/y"),
            ("//b.io/y", "https://b.io/y"),
        ] {
            assert_eq!(secure.resolve(base, location).unwrap(), expected);
        }
        assert_eq!(plain.resolve("http://a.io:5000/x", "/y").unwrap(), "http://a.io:5000/y");
        for location in ["http://a.io/y", "http://b.io", "https://u@a.io/", "ftp://a.io/"] {
            assert!(secure.resolve(base, location).is_err(), "{location}");
        }
    }
}
