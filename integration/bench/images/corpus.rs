//! What is pulled: an image of eight layers as a distribution with a runtime and an application has them, made of nothing but
//! a seed, and an archive of a thousand small ones. Made once, and kept in a directory for the next run.
//!
//! Files are words of a vocabulary, instructions of a table, or noise, so that they pack as source, programs and pictures do;
//! most of them are small, and few make up most of the bytes. Upper layers replace and delete files of lower ones.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Result;
use crate::tar::{self, Entry};

/// To be raised with every change of what is made here.
const VERSION: &str = "3";

/// How much is unpacked of each layer, the lowest first.
const LAYER_MEGABYTES: [usize; 8] = [290, 12, 205, 100, 1, 145, 40, 67];

/// How rich the languages of texts and of programs are: so that they pack to a fourth and to less than a half.
const WORDS: usize = 6000;
const INSTRUCTIONS: usize = 4000;

/// How many images the archive has.
pub const CATALOGUE: usize = 1000;

/// The tags of the image, each packed in its way.
pub const TAGS: [&str; 2] = ["gzip", "zstd"];

/// What was made.
pub struct Corpus {
    pub directory: PathBuf,
    /// Of the gzip image: packed layers, the lowest first.
    pub layers: Vec<PathBuf>,
    pub packed: u64,
    pub unpacked: u64,
    pub entries: u64,
}

/// One layer as it was written.
#[derive(Clone, Default)]
struct Layer {
    diff_id: String,
    unpacked: u64,
    entries: u64,
    /// Digest and size, by tag.
    packed: [(String, u64); 2],
}

impl Corpus {
    /// Finds what an earlier run has made, or makes it.
    pub fn open(cache: &Path) -> Result<Self> {
        let directory = cache.join(format!("images-{VERSION}"));
        let facts = directory.join("facts.json");
        if !facts.exists() {
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(directory.join("layout/blobs/sha256"))?;
            write_catalogue(&directory.join("catalogue.tar"))?;
            fs::write(&facts, write_image(&directory.join("layout"))?.to_string())?;
        }
        let facts: Value = serde_json::from_slice(&fs::read(facts)?)?;
        let number = |name: &str| facts[name].as_u64().unwrap_or_default();
        let layers = facts["layers"].as_array().ok_or("facts.json names layers")?;
        let blob = |layer: &Value| directory.join("layout/blobs/sha256").join(layer.as_str().unwrap_or_default());
        Ok(Self {
            layers: layers.iter().map(blob).collect(),
            packed: number("packed"),
            unpacked: number("unpacked"),
            entries: number("entries"),
            directory,
        })
    }

    /// Names the image as it lies here.
    pub fn source(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.directory.join("layout").display())
    }

    /// The docker archive of many small images.
    pub fn catalogue(&self) -> PathBuf {
        self.directory.join("catalogue.tar")
    }
}

/// What one of the small images is called.
pub fn catalogue_name(number: usize) -> String {
    format!("example.com/team{}/app{number}:v{}", number % 10, number % 7)
}

/// Writes an OCI layout with the image in both packings, and gives what a later run wants to know of it.
fn write_image(layout: &Path) -> Result<Value> {
    let blobs = layout.join("blobs/sha256");
    let (next, made) = (AtomicUsize::new(0), Mutex::new(vec![Layer::default(); LAYER_MEGABYTES.len()]));
    let work = || -> Result<(), String> {
        while let Some(megabytes) = LAYER_MEGABYTES.get(next.fetch_add(1, Ordering::Relaxed)) {
            let index = LAYER_MEGABYTES.iter().position(|other| other == megabytes).unwrap_or_default();
            let layer = write_layer(&blobs, index, megabytes << 20).map_err(|error| error.to_string())?;
            made.lock().map_err(|error| error.to_string())?[index] = layer;
        }
        Ok(())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    let layers = made.into_inner()?;
    let add = |document: &Value| -> Result<Value> {
        let text = document.to_string();
        let hex = hex(&Sha256::digest(&text));
        fs::write(blobs.join(&hex), &text)?;
        Ok(json!({ "mediaType": document["mediaType"], "digest": format!("sha256:{hex}"), "size": text.len() }))
    };
    let history = layers.iter().enumerate().map(|(index, _)| json!({ "created_by": format!("step {index}") }));
    let mut config = add(&json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": { "Cmd": ["/bin/app"], "Env": ["PATH=/bin:/usr/bin"], "WorkingDir": "/opt/app" },
        "history": history.collect::<Vec<_>>(),
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>() },
    }))?;
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let mut manifests = Vec::new();
    for (way, tag) in TAGS.iter().enumerate() {
        let described = layers.iter().map(|layer| {
            let (hex, size) = &layer.packed[way];
            let media_type = format!("application/vnd.oci.image.layer.v1.tar+{tag}");
            json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": size })
        });
        let mut manifest = add(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": described.collect::<Vec<_>>(),
        }))?;
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        manifests.push(manifest);
    }
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": manifests }).to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(json!({
        "packed": layers.iter().map(|layer| layer.packed[0].1).sum::<u64>(),
        "unpacked": layers.iter().map(|layer| layer.unpacked).sum::<u64>(),
        "entries": layers.iter().map(|layer| layer.entries).sum::<u64>(),
        "layers": layers.iter().map(|layer| &layer.packed[0].0).collect::<Vec<_>>(),
    }))
}

/// Writes a layer in both packings, in one pass.
fn write_layer(blobs: &Path, index: usize, bytes: usize) -> Result<Layer> {
    let place = |tag: &str| blobs.join(format!("layer-{index}-{tag}"));
    let create = |tag: &str| File::create_new(place(tag)).map(|file| Hashed::new(BufWriter::new(file)));
    let gzip = GzEncoder::new(create(TAGS[0])?, flate2::Compression::default());
    let zstd = zstd::Encoder::new(create(TAGS[1])?, 3)?;
    let mut archive = Hashed::new(Both(gzip, zstd));
    let (mut layer, mut tree) = (Layer::default(), Tree::new(index));
    let (mut written, mut buffer) = (0, Vec::new());
    while written < bytes {
        buffer.clear();
        for entry in tree.next_entries() {
            written += entry.data.len();
            layer.entries += 1;
            entry.write(&mut buffer);
        }
        archive.write_all(&buffer)?;
    }
    archive.write_all(&[0; 1024])?;
    layer.unpacked = u64::try_from(written)?;
    let (Both(gzip, zstd), diff_id, _) = archive.finish();
    layer.diff_id = format!("sha256:{diff_id}");
    for ((tag, file), packed) in TAGS.iter().zip([gzip.finish()?, zstd.finish()?]).zip(&mut layer.packed) {
        let (mut file, digest, size) = file.finish();
        file.flush()?;
        fs::rename(place(tag), blobs.join(&digest))?;
        *packed = (digest, size);
    }
    Ok(layer)
}

/// A docker archive of many images that share a layer.
fn write_catalogue(path: &Path) -> Result<()> {
    let layer = tar::archive(&[Entry::directory("etc"), Entry::file("etc/passwd", "root:x:0:0::/root:/bin/sh\n")]);
    let layer_hex = hex(&Sha256::digest(&layer));
    let layer_name = format!("{layer_hex}.tar");
    let (mut entries, mut manifest) = (vec![Entry::file(&layer_name, layer)], Vec::new());
    for number in 0..CATALOGUE {
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": format!("2026-01-01T{:02}:{:02}:{:02}Z", number / 3600, number / 60 % 60, number % 60),
            "config": { "Cmd": ["/bin/app"], "Env": [format!("NUMBER={number}")], "Labels": { "number": number.to_string() } },
            "history": [],
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_hex}")] },
        });
        let text = config.to_string();
        let name = format!("{}.json", hex(&Sha256::digest(&text)));
        manifest.push(json!({ "Config": name, "RepoTags": [catalogue_name(number)], "Layers": [layer_name] }));
        entries.push(Entry::file(&name, text));
    }
    entries.push(Entry::file("manifest.json", json!(manifest).to_string()));
    Ok(fs::write(path, tar::archive(&entries))?)
}

/// The files of a layer, as they follow each other.
struct Tree {
    random: Random,
    layer: usize,
    directory: String,
    directories: HashSet<String>,
    files: u64,
    words: Vec<Vec<u8>>,
    instructions: Vec<[u8; 8]>,
}

impl Tree {
    fn new(layer: usize) -> Self {
        // All layers have the same words and instructions, as all programs of a distribution do.
        let mut common = Random(1);
        let letters = b"etaoinshrdlucmfwypvbgkjqxz_";
        let words = (0..WORDS).map(|_| {
            let length = 2 + common.below(5) + common.below(6);
            (0..length).map(|_| letters[common.below(27).min(common.below(27))]).collect()
        });
        let words = words.collect();
        let instructions = (0..INSTRUCTIONS).map(|_| common.next().to_le_bytes()).collect();
        let random = Random(0x5eed + u64::try_from(layer).unwrap_or_default());
        Self { random, layer, directory: String::new(), directories: HashSet::new(), files: 0, words, instructions }
    }

    /// A file, link or whiteout, with the directory before it where that is new.
    fn next_entries(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        // The first directories are some of the layer below: what lies in them is replaced or deleted.
        let is_below = self.layer > 0 && self.files < 48;
        if self.files.is_multiple_of(12) {
            let number = self.files / 12;
            let place = ["usr/lib", "usr/share", "usr/lib", "opt/app/modules", "var/lib"][self.random.below(5)];
            let place = if number < 8 { "usr/lib" } else { place };
            let (layer, number) = if is_below { (self.layer - 1, number + 4) } else { (self.layer, number) };
            self.directory = format!("{place}/part{layer}.{}/d{number}", number / 20);
            let mut at = String::new();
            for part in self.directory.split('/') {
                at = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
                if self.directories.insert(at.clone()) {
                    entries.push(Entry::directory(&at));
                }
            }
        }
        let name = format!("file{}", self.files % 12);
        let path = format!("{}/{name}", self.directory);
        self.files += 1;
        entries.push(match self.random.below(100) {
            0..6 => Entry::symlink(&path, "../d0/file1"),
            6..16 if is_below => Entry::file(&format!("{}/.wh.{name}", self.directory), []),
            6..50 => Entry::file(&path, self.text()),
            50..89 => Entry::program(&path, self.program()),
            _ => Entry::file(&path, self.noise()),
        });
        entries
    }

    /// Half of the files have less than 6 KB; one in four hundred is a large one.
    fn size(&mut self) -> usize {
        let random = &mut self.random;
        let magnitude = 4 + random.below(6) + random.below(6) + random.below(6);
        let base = 1 << magnitude;
        let size = base + random.below(base);
        if random.below(400) == 0 { size * 32 } else { size }
    }

    fn text(&mut self) -> Vec<u8> {
        let size = self.size();
        let mut text = Vec::with_capacity(size + 16);
        while text.len() < size {
            if self.random.below(4) == 0 {
                self.random.repeat(&mut text, 8..56);
                continue;
            }
            text.extend_from_slice(&self.words[self.random.skewed(WORDS)]);
            text.extend_from_slice(
                [" ", " ", " ", "(", ") ", ".", ", ", ";\n    ", " = ", "\n"][self.random.below(10)].as_bytes(),
            );
        }
        text.truncate(size);
        text
    }

    fn program(&mut self) -> Vec<u8> {
        let size = self.size();
        let mut code = Vec::with_capacity(size + 64);
        while code.len() < size {
            if self.random.below(4) == 0 {
                self.random.repeat(&mut code, 6..32);
                continue;
            }
            let instruction = self.instructions[self.random.skewed(INSTRUCTIONS)];
            code.extend_from_slice(&instruction[..2 + self.random.below(7)]);
            match self.random.below(16) {
                // An address, or a number.
                0..3 => code.extend_from_slice(&self.random.next().to_le_bytes()[..2]),
                3 => code.resize(code.len() + self.random.below(24), 0),
                _ => {}
            }
        }
        code.truncate(size);
        code
    }

    fn noise(&mut self) -> Vec<u8> {
        let size = self.size();
        let mut noise: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| self.random.next().to_le_bytes()).collect();
        noise.truncate(size);
        noise
    }
}

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from((u128::from(self.next()) * u128::from(bound)) >> 64).unwrap_or_default()
    }

    /// Small numbers far more often than large ones.
    fn skewed(&mut self, bound: usize) -> usize {
        let once = self.below(bound);
        let twice = self.below(once + 1);
        self.below(twice + 1)
    }

    /// Says again what was said a while ago.
    fn repeat(&mut self, said: &mut Vec<u8>, length: std::ops::Range<usize>) {
        let ago = 1 + self.below(said.len().clamp(1, 30_000));
        let start = said.len().saturating_sub(ago);
        let length = length.start + self.below(length.len());
        said.extend_from_within(start..said.len().min(start + length));
    }
}

/// Writes everything twice.
struct Both<A, B>(A, B);

impl<A: Write, B: Write> Write for Both<A, B> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        self.1.flush()
    }
}

/// Hashes and counts what goes through.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        (self.inner, hex(&self.hash.finalize()), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hash.update(&bytes[..length]);
        self.size += u64::try_from(length).unwrap_or_default();
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
