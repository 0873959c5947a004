//! Which proxy a URL goes by: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, as Go's library reads them for
//! docker and podman.
//!
//! Upper case comes before lower case. The machine itself is never reached by a proxy. A proxy's URL may hold a password,
//! so that messages name the variable and not what is in it. Decides only; the client connects.

use std::net::IpAddr;

use ureq::http::Uri;

use crate::error::{Error, Result};
use crate::support::caller::Caller;
use crate::support::network::Network;

use super::origin::is_loopback;

/// The proxies of an environment.
#[derive(Clone, Default)]
pub struct Proxies {
    https: Option<Setting>,
    http: Option<Setting>,
    all: Option<Setting>,
    exceptions: Vec<Exception>,
}

/// A variable's value, and its name for messages.
#[derive(Clone)]
struct Setting {
    variable: &'static str,
    url: String,
}

/// What is reached directly.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    /// Addresses, perhaps at one port.
    Network(Network, Option<u16>),
    /// A host with all below it, perhaps at one port.
    Host(String, Option<u16>),
    /// All below a host; begins with a dot.
    Below(String, Option<u16>),
}

impl Proxies {
    /// Reads the environment.
    pub fn load(caller: &Caller) -> Self {
        let setting = |names: [&'static str; 2]| {
            names.into_iter().find_map(|variable| Some(Setting { variable, url: caller.text(variable)? }))
        };
        // A CGI server makes HTTP_PROXY of a request's header `Proxy` (CVE-2016-5386).
        let is_cgi = caller.variable("REQUEST_METHOD").is_some();
        let exceptions = caller.text("NO_PROXY").or_else(|| caller.text("no_proxy")).unwrap_or_default();
        Self {
            https: setting(["HTTPS_PROXY", "https_proxy"]),
            http: setting(if is_cgi { ["http_proxy"; 2] } else { ["HTTP_PROXY", "http_proxy"] }),
            all: setting(["ALL_PROXY", "all_proxy"]),
            exceptions: parse_exceptions(&exceptions),
        }
    }

    /// Gives the proxy that a URL goes by; `None` for a direct connection.
    pub fn of_url(&self, url: &str) -> Result<Option<ureq::Proxy>> {
        let uri: Uri = url.parse().map_err(|_| Error::invalid(format!("URL {url:?}: not a URL")))?;
        let is_https = uri.scheme_str() == Some("https");
        let specific = if is_https { &self.https } else { &self.http };
        let Some(Setting { variable, url }) = specific.as_ref().or(self.all.as_ref()) else { return Ok(None) };
        let host = uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        if is_loopback(&host) || self.exceptions.iter().any(|exception| exception.covers(&host, port)) {
            return Ok(None);
        }
        let wrong = || Error::invalid(format!("variable {variable}: not the URL of a proxy"));
        match url.split_once("://").map(|(scheme, _)| scheme) {
            None | Some("http" | "https" | "socks5h") => ureq::Proxy::new(url).map(Some).map_err(|_| wrong()),
            // As in Go, the proxy looks up the host by either of the names.
            Some("socks5") => ureq::Proxy::new(&url.replacen("socks5", "socks5h", 1)).map(Some).map_err(|_| wrong()),
            Some(scheme) if scheme.starts_with("socks") => {
                Err(Error::unsupported(format!("variable {variable}: of SOCKS, only version 5 is spoken here"))
                    .with_hint("name the proxy by socks5://HOST:PORT"))
            }
            Some(_) => Err(wrong()),
        }
    }
}

impl Exception {
    fn covers(&self, host: &str, port: u16) -> bool {
        let at = |own: &Option<u16>| own.is_none_or(|own| own == port);
        match self {
            Self::Everything => true,
            Self::Network(network, own) => {
                let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                at(own) && address.is_ok_and(|address| network.contains(address))
            }
            Self::Host(name, own) => {
                at(own) && host.strip_suffix(&name[..]).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Below(name, own) => at(own) && host.ends_with(&name[..]) && host.len() > name.len(),
        }
    }
}

/// Reads exceptions and asks for a URL; for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any(exceptions: &str, url: &str) -> Result<bool> {
    let https = Some(Setting { variable: "HTTPS_PROXY", url: "http://proxy:1".to_owned() });
    let proxies = Proxies { https, exceptions: parse_exceptions(exceptions), ..Proxies::default() };
    Ok(proxies.of_url(url)?.is_some())
}

/// Parses `NO_PROXY`: hosts, `.hosts`, addresses, networks, each perhaps with a port; `*` for all. What is none of these
/// matches nothing, as in Go.
fn parse_exceptions(text: &str) -> Vec<Exception> {
    let words = text.split(',').map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty());
    words.filter_map(|word| parse_exception(&word)).collect()
}

fn parse_exception(word: &str) -> Option<Exception> {
    if word == "*" {
        return Some(Exception::Everything);
    }
    if let Ok(network) = word.parse::<Network>() {
        return Some(Exception::Network(network, None));
    }
    let (host, port) = match word.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse::<u16>().ok()?)),
        _ => (word, None),
    };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(network) = bare.parse::<Network>()
        && !bare.contains('/')
    {
        return Some(Exception::Network(network, port));
    }
    let host = host.trim_end_matches('.');
    let host = if host.starts_with("*.") { &host[1..] } else { host };
    match host.trim_start_matches('.') {
        "" => None,
        _ if host.starts_with('.') => Some(Exception::Below(host.to_owned(), port)),
        _ => Some(Exception::Host(host.to_owned(), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::load(&Caller::assumed(0, Path::new("/"), variables))
    }

    fn host(proxies: &Proxies, url: &str) -> Option<String> {
        let proxy = proxies.of_url(url).unwrap_or_else(|error| panic!("{url}: {}", error.report()))?;
        Some(format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn the_scheme_decides() {
        let (http, https) = (("HTTP_PROXY", "http://plain:1"), ("https_proxy", "secure:2"));
        let all = ("ALL_PROXY", "http://all:3");
        for (variables, plain, secure) in [
            (&[][..], None, None),
            (&[http], Some("plain:1"), None),
            (&[https], None, Some("secure:2")),
            (&[http, https, all], Some("plain:1"), Some("secure:2")),
            (&[https, all], Some("all:3"), Some("secure:2")),
            (&[("HTTP_PROXY", ""), ("http_proxy", "low:4")], Some("low:4"), None),
            (&[http, ("http_proxy", "low:4")], Some("plain:1"), None),
            (&[http, ("REQUEST_METHOD", "GET")], None, None),
            (&[("HTTPS_PROXY", "https://u:p%40@tls")], None, Some("tls:443")),
            (&[("ALL_PROXY", "socks5://s")], Some("s:1080"), Some("s:1080")),
            (&[("HTTPS_PROXY", "socks5h://s:9")], None, Some("s:9")),
        ] {
            let proxies = proxies(variables);
            assert_eq!(host(&proxies, "http://a.io/x").as_deref(), plain, "{variables:?}");
            assert_eq!(host(&proxies, "https://a.io/x").as_deref(), secure, "{variables:?}");
        }
        let proxy = proxies(&[("HTTPS_PROXY", "http://u:p%40@a:1")]).of_url("https://b.io").unwrap().unwrap();
        assert_eq!((proxy.username(), proxy.password()), (Some("u"), Some("p@")));
    }

    #[test]
    fn exceptions() {
        for (exception, url, is_direct) in [
            ("a.io", "https://a.io/v2/", true),
            ("a.io", "https://A.IO./v2/", true),
            ("a.io", "https://x.a.io/", true),
            ("a.io", "https://xa.io/", false),
            (".a.io", "https://a.io/", false),
            (".a.io", "https://x.a.io/", true),
            ("*.a.io", "https://x.y.a.io/", true),
            ("*.a.io", "https://a.io/", false),
            ("b.io , a.io", "https://a.io:5000/", true),
            ("a.io:5000", "https://a.io:5000/", true),
            ("a.io:5000", "https://a.io/", false),
            ("a.io:443", "https://a.io/", true),
            ("*", "https://a.io/", true),
            ("10.0.0.0/8", "https://10.1.2.3/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("10.0.0.1", "https://10.0.0.1:5000/", true),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/", true),
            ("10.0.0.1:5000", "https://10.0.0.1:5001/", false),
            ("fd00::/8", "https://[fd00::1]:5000/", true),
            ("[fd00::1]:5000", "https://[fd00::1]:5000/", true),
            ("[fd00::1]:5000", "https://[fd00::1]/", false),
            ("fd00::1", "https://[fd00::1]/", true),
            ("", "https://a.io/", false),
            (",.,a.io:x,", "https://a.io/", false),
            ("", "https://localhost:5000/", true),
            ("", "https://127.3.2.1/", true),
            ("", "https://[::1]:5000/", true),
        ] {
            for name in ["NO_PROXY", "no_proxy"] {
                let proxies = proxies(&[("HTTPS_PROXY", "proxy:1"), (name, exception)]);
                assert_eq!(host(&proxies, url).is_none(), is_direct, "{exception:?} {url}");
            }
        }
    }

    #[test]
    fn messages_hold_no_password() {
        for url in ["socks4://u:hunter2@a", "ftp://u:hunter2@a", "http://u:hunter2@", "http://u:hunter2@a b"] {
            let report = proxies(&[("HTTPS_PROXY", url)]).of_url("https://a.io").unwrap_err().report();
            assert!(report.starts_with("variable HTTPS_PROXY: ") && !report.contains("hunter"), "{report}");
        }
    }
}
