//! Registries on loopback: Debian's docker-registry, and one that is scripted and can lie.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Scene;
use super::docker_registry::DockerRegistry;
use super::image::{Image, Layout, digest};

/// A request as the scripted registry got it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// As much of it as came.
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What the scripted registry answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Nothing more comes after so many bytes, and the connection stays.
    pub(crate) stall: Option<usize>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The connection ends without an answer.
    pub(crate) fn silence() -> Self {
        Self::new(0)
    }

    pub(crate) fn ok(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new(200).header("content-type", media_type).body(body)
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

type Script = dyn Fn(&Request) -> Option<Reply> + Send + Sync;

/// A registry that holds one image and does as its script says.
pub(crate) struct Scripted {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
    ended: Arc<AtomicBool>,
}

impl Scripted {
    /// Serves what a layout holds as the repository `app`. The script is asked first; what it leaves is answered as a
    /// registry should.
    pub(crate) fn serve(layout: &Layout, script: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let contents = Contents::read(layout);
        Self::start(move |request| script(request).unwrap_or_else(|| contents.answer(request)))
    }

    /// Serves nothing but what the script says.
    pub(crate) fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listen on loopback");
        let port = listener.local_addr().expect("an address").port();
        let (log, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let script: Arc<Script> = Arc::new(move |request| Some(script(request)));
        let (their_log, their_end) = (Arc::clone(&log), Arc::clone(&ended));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if their_end.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (script, log, ended) = (Arc::clone(&script), Arc::clone(&their_log), Arc::clone(&their_end));
                std::thread::spawn(move || converse(&stream, &*script, &log, &ended));
            }
        });
        Self { port, log, ended }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The name of the image that is served.
    pub(crate) fn image(&self) -> String {
        format!("{}/app:latest", self.host())
    }

    /// What was asked so far.
    pub(crate) fn log(&self) -> Vec<Request> {
        self.log.lock().expect("no test thread has panicked").clone()
    }

    /// How often a path was asked for with GET.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.log().iter().filter(|request| request.method == "GET" && request.path.contains(path)).count()
    }

    /// Waits until something was asked for that fits.
    #[track_caller]
    pub(crate) fn wait_for(&self, fits: impl Fn(&Request) -> bool) -> Request {
        let start = Instant::now();
        loop {
            if let Some(request) = self.log().into_iter().find(&fits) {
                return request;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "it was never asked for: {:?}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// The documents and blobs of one image.
pub(crate) struct Contents {
    manifest: Vec<u8>,
    media_type: String,
    blobs: HashMap<String, Vec<u8>>,
}

impl Contents {
    pub(crate) fn read(layout: &Layout) -> Self {
        let index: Value =
            serde_json::from_str(&super::husk::read_host(layout.path().join("index.json"))).expect("JSON");
        let blobs: HashMap<_, _> = std::fs::read_dir(layout.blobs())
            .expect("list blobs")
            .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("read a blob"))
            .map(|bytes| (digest(&bytes), bytes))
            .collect();
        let described = &index["manifests"][0];
        let manifest = blobs[described["digest"].as_str().expect("a digest")].clone();
        let media_type = described["mediaType"].as_str().expect("a type").to_owned();
        Self { manifest, media_type, blobs }
    }

    pub(crate) fn answer(&self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap_or_default();
        if path == "/v2/" {
            return Reply::ok("application/json", "{}");
        }
        let Some((_, what)) = path.strip_prefix("/v2/app/").and_then(|rest| rest.split_once('/')) else {
            return Reply::new(404);
        };
        // It knows no referrers, and nothing is under the tags that are made of digests.
        if path.contains("/referrers/") || what.starts_with("sha256-") {
            return Reply::new(404);
        }
        if path.contains("/manifests/") {
            return match self.blobs.get(what) {
                Some(blob) => Reply::ok(&self.media_type, blob.clone()),
                None => Reply::ok(&self.media_type, self.manifest.clone()),
            };
        }
        let Some(blob) = self.blobs.get(what) else {
            let words = r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
            return Reply::new(404).body(words);
        };
        let start = request.header("range").and_then(|range| {
            range.strip_prefix("bytes=").and_then(|range| range.trim_end_matches('-').parse::<usize>().ok())
        });
        match start {
            Some(start) => Reply::new(206)
                .header("content-range", format!("bytes {start}-{}/{}", blob.len() - 1, blob.len()))
                .body(&blob[start..]),
            None => Reply::ok("application/octet-stream", blob.clone()),
        }
    }
}

fn converse(stream: &TcpStream, script: &Script, log: &Mutex<Vec<Request>>, ended: &AtomicBool) {
    // An answer goes out in two writes; the second is not to wait for the first one's acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        log.lock().expect("no test thread has panicked").push(request.clone());
        let Some(reply) = script(&request).filter(|reply| reply.status > 0) else { return };
        let mut head = format!("HTTP/1.1 {} x\r\n", reply.status);
        for (name, value) in &reply.headers {
            write!(head, "{name}: {value}\r\n").expect("a string");
        }
        if !reply.headers.iter().any(|(name, _)| name == "content-length" || name == "transfer-encoding") {
            write!(head, "content-length: {}\r\n", reply.body.len()).expect("a string");
        }
        head.push_str("\r\n");
        let end = reply.cut.or(reply.stall).unwrap_or(reply.body.len()).min(reply.body.len());
        let body = if request.method == "HEAD" { &[][..] } else { &reply.body[..end] };
        let mut output = stream;
        if output.write_all(head.as_bytes()).and_then(|()| output.write_all(body)).is_err() {
            return;
        }
        if reply.stall.is_some() {
            while !ended.load(Ordering::SeqCst) && stream.peer_addr().is_ok() {
                std::thread::sleep(Duration::from_millis(20));
                if stream.take_error().ok().flatten().is_some() {
                    break;
                }
            }
        }
        if reply.cut.is_some() || reply.stall.is_some() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text: &String| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

/// Debian's docker-registry.
pub(crate) struct Real(DockerRegistry);

impl Real {
    /// Starts one with its files in the scene; `more` are further lines of its configuration.
    #[track_caller]
    pub(crate) fn start(scene: &Scene, more: &str) -> Self {
        Self(DockerRegistry::start(&scene.path().join("registry"), more))
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        self.0.host()
    }

    /// Puts an image there with skopeo, as `NAME`; gives its full name.
    #[track_caller]
    pub(crate) fn hold(&self, scene: &Scene, image: &Image, name: &str) -> String {
        let layout = image.layout(scene, &name.replace(['/', ':'], "-"));
        let full = format!("{}/{name}", self.host());
        scene
            .program("skopeo")
            .env("HOME", scene.path())
            .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"])
            .args([layout.reference(), format!("docker://{full}")])
            .run()
            .success();
        full
    }
}

/// Says whether nothing of a digest is in the store of the scene, whole or in part.
pub(crate) fn has_blob(store: &Path, digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| store.join("store/blobs").join(algorithm).join(hex).exists())
}
