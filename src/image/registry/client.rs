//! One registry: requests with credentials, redirects, retries and limits.
//!
//! Three layers, each with one duty: [`Client::send`] tries again, `Client::exchange` answers challenges and follows
//! redirects, `Client::transmit` makes one HTTP exchange. An answer is bounded in size and in time; where it wants to lead
//! us is decided by [`Origin`], and credentials never leave the origin that they are for. TLS is never given up, except
//! for a registry that the user or loopback's rule has made insecure (CVE-2014-5277).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, SocksConnector, TcpConnector};
use ureq::{Agent, AsSendBody, Body, SendBody};

use crate::error::{Context, Error, Kind, Result};
use crate::support::base64;

use super::auth::{Challenge, Token, may_have_credentials};
use super::login::Login;
use super::origin::Origin;
use super::proxy::Proxies;
use super::resolver::HostResolver;
use super::tls::{self, TlsConnector};

/// Redirects that one request follows.
const REDIRECTS: usize = 10;
/// Bytes of an answer's header.
const HEADER_BYTES: usize = 64 << 10;
/// Bytes of what a token server or a failing registry answers.
const ANSWER_BYTES: u64 = 1 << 20;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub stall: Duration,
    /// Before the second try; doubled before each further one.
    pub pause: Duration,
    /// The longest wait that a registry may ask for (`Retry-After`).
    pub longest_pause: Duration,
    /// Tries in all.
    pub tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_mins(1),
            pause: Duration::from_millis(250),
            longest_pause: Duration::from_mins(1),
            tries: 5,
        }
    }
}

/// What a client is made of.
pub struct Setup {
    /// `HOST[:PORT]`, as the user names the registry.
    pub registry: String,
    /// Where it is spoken to, if that is another place (a mirror, `registry-1.docker.io`).
    pub host: String,
    /// Certificates are not checked, and plain HTTP will do.
    pub is_insecure: bool,
    pub login: Option<Login>,
    pub tls: Arc<rustls::ClientConfig>,
    pub proxies: Proxies,
    pub resolver: HostResolver,
    pub patience: Patience,
    /// Bytes of one request of an upload.
    pub chunk: u64,
}

/// A registry that is spoken to.
pub struct Client {
    registry: String,
    agent: Agent,
    /// https, and http where that is allowed: what has answered comes first.
    origins: Mutex<Vec<Origin>>,
    login: Option<Login>,
    proxies: Proxies,
    state: Mutex<State>,
    patience: Patience,
    chunk: u64,
}

#[derive(Default)]
struct State {
    wants_basic: bool,
    /// By scope.
    tokens: HashMap<String, Token>,
    /// What registries say to the user (RFC 7234, code 299).
    warnings: Vec<String>,
}

/// A request's body, which can be sent again.
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// So many bytes, from the start each time it is opened.
    Stream(u64, &'a dyn Fn() -> Result<Box<dyn Read + 'a>>),
}

/// A request.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// A path that begins with `/`, or an absolute URL that the registry gave.
    pub(crate) target: &'a str,
    /// What a token must allow, as `repository:NAME:pull`.
    pub(crate) scope: &'a str,
    pub(crate) headers: &'a [(&'a str, String)],
    pub(crate) payload: Payload<'a>,
}

impl<'a> Call<'a> {
    pub(crate) fn get(target: &'a str, scope: &'a str) -> Self {
        Self { method: Method::GET, target, scope, headers: &[], payload: Payload::None }
    }
}

/// An answer, and the URL that gave it.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) url: String,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// Gives the media type without its parameters.
    pub(crate) fn media_type(&self) -> Option<&str> {
        self.header(CONTENT_TYPE.as_str()).map(|value| value.split(';').next().unwrap_or(value).trim())
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH.as_str())?.parse().ok()
    }

    /// Reads a document that may have so many bytes.
    pub(crate) fn read(self, limit: u64) -> Result<Vec<u8>> {
        if self.length().is_some_and(|length| length > limit) {
            return Err(Error::invalid(format!("limit: the answer is larger than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        let mut body = self.response.into_body().into_reader().take(limit + 1);
        body.read_to_end(&mut bytes).map_err(|error| transport(&error))?;
        if bytes.len() as u64 > limit {
            return Err(Error::invalid(format!("limit: the answer is larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Turns an answer that is not a success into an error.
    pub(crate) fn success(self) -> Result<Self> {
        if self.status().is_success() { Ok(self) } else { Err(self.failure()) }
    }

    /// Says what the registry says went wrong.
    pub(crate) fn failure(self) -> Error {
        let status = self.status();
        let words = self.read(ANSWER_BYTES).ok().and_then(|bytes| words(&bytes));
        let reason = status.canonical_reason().unwrap_or("").to_ascii_lowercase();
        let text = match words {
            Some(words) => format!("{}: {words}", status.as_u16()),
            None => format!("{} {reason}", status.as_u16()),
        };
        match status {
            StatusCode::NOT_FOUND => Error::new(Kind::NotFound, text),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::invalid(text).with_hint("log in with `husk login REGISTRY`, if it needs an account")
            }
            _ => Error::new(Kind::Other, text),
        }
    }
}

/// Reads the errors of the distribution specification.
fn words(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        code: Option<String>,
        message: Option<String>,
    }
    let errors: Errors = serde_json::from_slice(bytes).ok()?;
    let one = |one: &One| match (&one.code, &one.message) {
        (Some(code), Some(message)) if !message.is_empty() => format!("{code}: {message}"),
        (code, message) => code.clone().or_else(|| message.clone()).unwrap_or_default(),
    };
    let words: Vec<_> = errors.errors.iter().take(3).map(one).filter(|words| !words.is_empty()).collect();
    // It comes from outside and goes to a terminal.
    (!words.is_empty()).then(|| printable(&words.join("; "), 500))
}

/// Takes control characters out of what a registry says, and cuts it.
fn printable(text: &str, limit: usize) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(limit).collect()
}

impl Client {
    /// Prepares to speak to a registry; nothing is sent yet.
    pub fn new(setup: Setup) -> Result<Self> {
        let Setup { registry, host, is_insecure, login, tls, proxies, resolver, patience, chunk } = setup;
        let mut origins = vec![Origin::new(&host, true).with_context(|| format!("registry {registry}"))?];
        if is_insecure {
            origins.push(Origin::new(&host, false)?);
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("husk/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("")
            .max_response_header_size(HEADER_BYTES)
            .timeout_connect(Some(patience.connect))
            .timeout_per_read(Some(patience.stall))
            .timeout_per_write(Some(patience.stall))
            .input_buffer_size(128 << 10)
            .output_buffer_size(128 << 10)
            .max_idle_connections_per_host(8)
            .proxy(None)
            .build();
        let connector =
            ().chain(SocksConnector::default())
                .chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(TlsConnector(tls));
        let agent = Agent::with_parts(config, connector, resolver);
        let (origins, state) = (Mutex::new(origins), Mutex::default());
        Ok(Self { registry, agent, origins, login, proxies, state, patience, chunk })
    }

    /// Gives the registry's name.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Asks whether the registry is one, and takes the login.
    pub fn ping(&self) -> Result<()> {
        self.send(&Call::get("/v2/", ""))?.success().map(drop)
    }

    pub(crate) fn patience(&self) -> Patience {
        self.patience
    }

    pub(crate) fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Gives what the registry had to say to the user, once.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).warnings)
    }

    /// Sends a request; tries again where the failure may pass.
    pub(crate) fn send(&self, call: &Call<'_>) -> Result<Answer> {
        let mut pause = self.patience.pause;
        for number in 1.. {
            let answer = self.exchange(call);
            let is_last = number >= self.patience.tries;
            match answer {
                Ok(answer) if !may_pass(answer.status()) => return Ok(answer),
                Ok(answer) => {
                    let asked = answer.header(RETRY_AFTER.as_str()).and_then(retry_after);
                    if is_last || asked.is_some_and(|asked| asked > self.patience.longest_pause) {
                        let hint = asked.map(|asked| format!("the registry asks to wait {} s", asked.as_secs()));
                        let failure = answer.failure();
                        return Err(hint.into_iter().fold(failure, Error::with_hint));
                    }
                    std::thread::sleep(asked.unwrap_or(pause));
                }
                Err(error) if is_last || !is_passing(&error) => return Err(error),
                Err(_) => std::thread::sleep(pause),
            }
            pause = pause.saturating_mul(2).min(self.patience.longest_pause);
        }
        unreachable!("the last try returns")
    }

    /// Sends a request once, for those that must not arrive twice.
    pub(crate) fn send_once(&self, call: &Call<'_>) -> Result<Answer> {
        self.exchange(call)
    }

    /// Makes a request, with the credentials that it turns out to need, and follows where it is led.
    fn exchange(&self, call: &Call<'_>) -> Result<Answer> {
        let origin = self.reach()?;
        let first =
            if call.target.starts_with('/') { format!("{origin}{}", call.target) } else { call.target.to_owned() };
        let mut url = first.clone();
        let mut has_renewed = false;
        for _ in 0..=REDIRECTS {
            let is_home = Origin::of_url(&url)? == origin;
            let authorization = if is_home { self.authorization(call.scope) } else { None };
            let answer = Answer { response: self.transmit(&url, call, authorization.as_deref())?, url: url.clone() };
            self.note_warnings(&answer);
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && is_home && !has_renewed {
                has_renewed = true;
                if !self.renew(&origin, &answer, call.scope, authorization.as_deref())? {
                    return Ok(answer);
                }
                continue;
            }
            let is_reading = matches!(call.method, Method::GET | Method::HEAD);
            let location = answer.header(LOCATION.as_str());
            match location {
                Some(location) if status.is_redirection() && is_reading => {
                    url = Origin::of_url(&url)?.resolve(&url, location).context("follow the redirect")?;
                }
                _ => return Ok(answer),
            }
        }
        Err(Error::invalid(format!("{first}: limit: more than {REDIRECTS} redirects")))
    }

    /// Finds out how an insecure registry wants to be spoken to; others are spoken to in TLS, or not at all.
    fn reach(&self) -> Result<Origin> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        while origins.len() > 1 {
            let url = format!("{}/v2/", origins[0]);
            let request = Request::get(&url).body(()).map_err(|error| Error::invalid(format!("{url}: {error}")))?;
            match self.exchange_once(&url, request)? {
                Ok(_) => origins.truncate(1),
                Err(ureq::Error::Timeout(_) | ureq::Error::HostNotFound) => break,
                Err(_) => {
                    origins.remove(0);
                }
            }
        }
        Ok(origins[0].clone())
    }

    fn authorization(&self, scope: &str) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = state.tokens.get(scope).filter(|token| token.is_fresh()) {
            return Some(format!("Bearer {}", token.text));
        }
        if state.wants_basic { self.login.as_ref().and_then(basic) } else { None }
    }

    /// Gets what a challenge asks for; false where there is nothing more to offer.
    /// `refused` is what it got; another thread may have got better since.
    fn renew(&self, origin: &Origin, answer: &Answer, scope: &str, refused: Option<&str>) -> Result<bool> {
        let headers = answer.response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = Challenge::parse(headers.iter().filter_map(|value| value.to_str().ok()))?;
        match challenge {
            None => Ok(false),
            Some(Challenge::Basic) => {
                self.state.lock().unwrap_or_else(PoisonError::into_inner).wants_basic = true;
                // What was refused once is refused again.
                Ok(self.authorization(scope).is_some_and(|offer| Some(&*offer) != refused))
            }
            Some(Challenge::Bearer { .. }) if self.authorization(scope).as_deref() != refused => Ok(true),
            Some(Challenge::Bearer { realm, service, scope: asked }) => {
                let wanted = if scope.is_empty() { asked.unwrap_or_default() } else { scope.to_owned() };
                let token = self
                    .fetch_token(origin, &realm, service.as_deref(), &wanted)
                    .with_context(|| format!("get a token from {realm}"))?;
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.tokens.insert(scope.to_owned(), token);
                Ok(true)
            }
        }
    }

    fn fetch_token(&self, origin: &Origin, realm: &str, service: Option<&str>, scope: &str) -> Result<Token> {
        let place = Origin::of_url(realm)?;
        if origin.is_https && !place.is_https {
            return Err(Error::invalid("the realm is not https"));
        }
        let login = match &self.login {
            Some(login) if may_have_credentials(origin, &place) => Some(login),
            Some(_) => {
                return Err(Error::invalid(format!(
                    "{} would get the credentials for {}, and belongs to another domain",
                    place.host, self.registry
                ))
                .with_hint("log out to pull anonymously"));
            }
            None => None,
        };
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        pairs.extend(service.map(|service| ("service", service)));
        pairs.extend(scope.split(' ').filter(|scope| !scope.is_empty()).map(|scope| ("scope", scope)));
        let sent = if let Some(Login::IdentityToken(token)) = login {
            pairs.extend([("grant_type", "refresh_token"), ("client_id", "husk"), ("refresh_token", token.expose())]);
            let form = query(&pairs);
            let request = Request::post(realm)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form)
                .map_err(|error| Error::invalid(error.to_string()))?;
            self.exchange_once(realm, request)?
        } else {
            if let Some(Login::Basic { user, .. }) = login {
                pairs.push(("account", user));
            }
            let joint = if realm.contains('?') { '&' } else { '?' };
            let mut request = Request::get(format!("{realm}{joint}{}", query(&pairs)));
            if let Some(header) = login.and_then(basic) {
                request = request.header(AUTHORIZATION, header);
            }
            self.exchange_once(realm, request.body(()).map_err(|error| Error::invalid(error.to_string()))?)?
        };
        let response = sent.map_err(|error| failed(error, realm))?;
        let answer = Answer { response, url: realm.to_owned() };
        Token::parse(&answer.success()?.read(ANSWER_BYTES)?)
    }

    fn transmit(&self, url: &str, call: &Call<'_>, authorization: Option<&str>) -> Result<Response<Body>> {
        let mut request = Request::builder().method(call.method.clone()).uri(url);
        for (name, value) in call.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let wrong = |error: ureq::http::Error| Error::invalid(format!("{url}: {error}"));
        let sent = match &call.payload {
            Payload::None if matches!(call.method, Method::GET | Method::HEAD | Method::DELETE) => {
                self.exchange_once(url, request.body(()).map_err(wrong)?)?
            }
            Payload::None => self.exchange_once(url, request.body(&[][..]).map_err(wrong)?)?,
            Payload::Bytes(bytes) => self.exchange_once(url, request.body(*bytes).map_err(wrong)?)?,
            Payload::Stream(length, open) => {
                let mut reader = open()?;
                let request = request.header(CONTENT_LENGTH, *length);
                self.exchange_once(url, request.body(SendBody::from_reader(&mut reader)).map_err(wrong)?)?
            }
        };
        sent.map_err(|error| failed(error, url))
    }

    /// Sends a request, through the proxy that is for its URL.
    fn exchange_once<B: AsSendBody>(
        &self,
        url: &str,
        request: Request<B>,
    ) -> Result<Result<Response<Body>, ureq::Error>> {
        let proxy = self.proxies.of_url(url)?;
        Ok(self.agent.run(self.agent.configure_request(request).proxy(proxy).build()))
    }

    fn note_warnings(&self, answer: &Answer) {
        for value in answer.response.headers().get_all("warning") {
            // 299 - "text"
            let text =
                value.to_str().ok().and_then(|value| value.strip_prefix("299 ")?.split_once('"')?.1.strip_suffix('"'));
            if let Some(text) = text {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let text = printable(text, 500);
                if state.warnings.len() < 16 && !state.warnings.contains(&text) {
                    state.warnings.push(text);
                }
            }
        }
    }
}

fn basic(login: &Login) -> Option<String> {
    match login {
        Login::Basic { user, password } => {
            Some(format!("Basic {}", base64::encode(format!("{user}:{}", password.expose()).as_bytes())))
        }
        Login::IdentityToken(_) => None,
    }
}

/// Writes `application/x-www-form-urlencoded`.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(byte)),
                _ => {
                    let _ = write!(text, "%{byte:02X}");
                }
            }
        }
    }
    text
}

/// Says whether an answer may be another one later.
pub(super) fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Says whether a failure may pass by itself: what the network did, and not what was wrong in the request.
fn is_passing(error: &Error) -> bool {
    error.kind() == Kind::Other
}

/// Reads `Retry-After`: seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    let left = date.timestamp().duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(left).unwrap_or_default())
}

/// Gives an error of the HTTP library husk's form. What it calls the network's fault is [`Kind::Other`].
fn failed(error: ureq::Error, url: &str) -> Error {
    let place = Origin::of_url(url).map_or_else(|_| url.to_owned(), |origin| origin.to_string());
    let (kind, text) = match error {
        // A name that is unknown, and a port where nobody listens, are still so a second later.
        ureq::Error::HostNotFound => (Kind::NotFound, "the host is not found".to_owned()),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            (Kind::NotFound, "connection refused (ECONNREFUSED)".to_owned())
        }
        ureq::Error::Timeout(_) => (Kind::Other, "no answer in time".to_owned()),
        ureq::Error::ConnectionFailed => (Kind::Other, "no connection".to_owned()),
        ureq::Error::Io(error) => match of_tls(&error) {
            Some(cause) if tls::is_authoritys(cause) => return foreign_authority(&place),
            Some(cause) => (Kind::Invalid, format!("TLS: {cause}")),
            None => (Kind::Other, error.to_string()),
        },
        ureq::Error::Tls(error) => (Kind::Invalid, format!("TLS: {error}")),
        error => (Kind::Invalid, error.to_string()),
    };
    Error::new(kind, text).context(format!("ask {place}"))
}

fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn foreign_authority(place: &str) -> Error {
    Error::invalid("TLS: the registry shows the certificate of an authority that is not trusted")
        .context(format!("ask {place}"))
        .with_hint("if it is the registry's own, put it into the registry's folder in certs.d, as ca.crt")
}

/// The failure of a body that is being read.
pub(crate) fn transport(error: &io::Error) -> Error {
    Error::new(Kind::Other, error.to_string())
}
