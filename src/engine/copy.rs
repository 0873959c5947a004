//! `cp`: files between a container and this machine, or a tar on one side; by docker's rules of what lands where.
//!
//! ```text
//! a file's or a directory's tree ┐                  ┌ a directory: of the host, or of the container
//! a tar on standard input        ┴─ entries, data ──┴ a tar on standard output
//! ```
//!
//! Both sides are roots below which paths are resolved by descriptor: the container's own view of its files, and this
//! machine's. Whatever a container does meanwhile (a directory that becomes a symlink, a file that becomes a FIFO), nothing
//! outside of its files is read or written (CVE-2018-15664, CVE-2019-10152). What could harm the side that it comes to is not
//! copied: devices and sockets never, and set-user-id bits from a container only with `archive`.

mod put;
mod tree;

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::engine::Engine;
use super::ids;
use super::view::View;
use crate::error::{Context, Error, Kind, Result};
use crate::image::limits::LayerLimits;
use crate::image::stream::{BLOCK_BYTES, Unpacked};
use crate::image::tar::{Entry, EntryKind, Reader};
use crate::image::write::tar::TarWriter;
use crate::namespaces::idmap::IdMaps;
use crate::runtime::tree::Access;
use crate::support::root::Root;
use crate::sys::mount::Reach;

use put::{Ownership, Writer};

/// Where something comes from, or goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A path of this machine.
    Host(PathBuf),
    /// A path in a container, from its root.
    Container { reference: String, path: PathBuf },
    /// A tar: standard input or standard output.
    Stream,
}

/// How it is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Owners come along, and all bits of the mode.
    pub archive: bool,
    /// A symlink that is named as the source stands for what it leads to.
    pub follow: bool,
    /// Directories may give way to files, and files to directories.
    pub overwrite: bool,
}

/// Takes entries as they come: a directory before what is in it. Paths are from the top of what is copied, which is empty.
trait Sink {
    fn put(&mut self, entry: &Entry, feed: Feed<'_>) -> Result<()>;
}

/// Gives the data of a file to whom it is handed, with the place of each piece; holes are left out.
type Feed<'a> = &'a mut dyn FnMut(&mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()>;

/// Copies. Gives lines for the user: what was left out.
pub fn copy(engine: &Engine, source: &End, destination: &End, options: Options) -> Result<Vec<String>> {
    match (source, destination) {
        (End::Container { .. }, End::Container { .. }) => {
            Err(Error::unsupported("copying between containers is not supported")
                .with_hint("husk cp ONE:PATH - | husk cp - OTHER:PATH"))
        }
        (End::Container { reference, path }, other) => {
            let container = engine.find(reference)?;
            let from = source_of(path, options);
            let target = host_target(other)?;
            View::find(engine, &container, Reach::Tree, Access::Read)?.with(|root| {
                let ownership = if options.archive { Ownership::Kept } else { Ownership::Callers };
                let copied = send(root, &from, &target, ownership, options);
                copied.with_context(|| format!("copy {reference}:{}", path.display()))
            })
        }
        (other, End::Container { reference, path }) => {
            let container = engine.find(reference)?;
            let feeder = match other {
                End::Stream => Feeder::Stream(standard_input()?),
                End::Host(path) => Feeder::Host(source_of(&absolute(path)?, options)),
                End::Container { .. } => return Err(Error::invalid("two containers")),
            };
            let record = container.record()?;
            if options.archive {
                record.require_usual_ids()?;
            }
            let owners = record.ids.as_ref().map(|ids| ids::owners(ids, engine.maps.as_ref())).transpose()?;
            let root_of = |find: fn(&IdMaps, u32) -> Option<u32>| owners.as_ref().and_then(|owners| find(owners, 0));
            let roots = Ownership::Roots {
                uid: root_of(IdMaps::uid_outside).unwrap_or(0),
                gid: root_of(IdMaps::gid_outside).unwrap_or(0),
            };
            View::find(engine, &container, Reach::Tree, Access::Write)?.with(|root| {
                let ownership = if options.archive { Ownership::Kept } else { roots };
                let copied = receive(root, path, feeder, ownership, options);
                copied.with_context(|| format!("copy to {reference}:{}", path.display()))
            })
        }
        _ => Err(Error::invalid("must specify at least one container source or destination")
            .with_hint("a path in a container is CONTAINER:PATH")),
    }
}

enum Feeder {
    Host(Source),
    Stream(File),
}

/// The other side of what comes out of a container.
enum Target {
    Host(PathBuf),
    Stream(File),
}

fn host_target(end: &End) -> Result<Target> {
    match end {
        End::Host(path) => Ok(Target::Host(absolute(path)?)),
        _ => Ok(Target::Stream(
            rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 0).context("standard output")?.into(),
        )),
    }
}

fn standard_input() -> Result<File> {
    Ok(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 0).context("standard input")?.into())
}

/// Makes a path absolute, and keeps a slash or `/.` at its end, which mean something.
fn absolute(path: &Path) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let mut whole = std::env::current_dir().context("find the working directory")?.into_os_string();
    whole.push("/");
    whole.push(path);
    Ok(whole.into())
}

/// What a source's words say.
struct Source {
    path: PathBuf,
    /// Of a directory, what is in it and not itself.
    contents_only: bool,
    /// It must be a directory.
    is_directory: bool,
    follow: bool,
}

fn source_of(path: &Path, options: Options) -> Source {
    let text = path.as_os_str().as_bytes();
    let ends_in_dot = text == b"." || text.ends_with(b"/.");
    let ends_in_slash = text.is_empty() || text.ends_with(b"/");
    // What has no name of its own has nothing but contents.
    let contents_only = ends_in_dot || path.file_name().is_none();
    let is_directory = ends_in_dot || ends_in_slash;
    Source { path: path.to_owned(), contents_only, is_directory, follow: options.follow || is_directory }
}

impl Source {
    /// Gives the name that it keeps in a directory.
    fn name(&self) -> Option<OsString> {
        if self.contents_only { None } else { self.path.file_name().map(ToOwned::to_owned) }
    }

    /// Says what kind of file it is.
    fn kind(&self, root: &Root) -> Result<FileType> {
        let flags = if self.follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let opened = root.open_at(&self.path, flags, Mode::empty());
        let found = opened.with_context(|| format!("find {}", self.path.display()))?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        if self.is_directory && kind != FileType::Directory {
            return Err(Errno::NOTDIR).with_context(|| format!("find {}", self.path.display()));
        }
        Ok(kind)
    }
}

/// Copies out of a container.
fn send(root: &Root, source: &Source, target: &Target, ownership: Ownership, options: Options) -> Result<Vec<String>> {
    let kind = source.kind(root)?;
    match target {
        Target::Host(path) => {
            let host = Root::open(Path::new("/"))?;
            let place = Landing::find(&host, path, kind, source)?;
            let mut writer = Writer::new(place.directory, place.name, ownership, options.overwrite);
            let left_out = tree::read(root, source, &mut writer)?;
            writer.finish()?;
            Ok(left_out)
        }
        Target::Stream(file) => {
            let out = std::io::BufWriter::with_capacity(BLOCK_BYTES, file.try_clone()?);
            let mut tar = Tar { writer: TarWriter::new(out), name: source.name() };
            let left_out = tree::read(root, source, &mut tar)?;
            tar.writer.finish()?.flush().context("write to standard output")?;
            Ok(left_out)
        }
    }
}

/// Copies into a container.
fn receive(root: &Root, path: &Path, feeder: Feeder, ownership: Ownership, options: Options) -> Result<Vec<String>> {
    match feeder {
        Feeder::Host(source) => {
            let host = Root::open(Path::new("/"))?;
            let kind = source.kind(&host)?;
            let place = Landing::find(root, path, kind, &source)?;
            let mut writer = Writer::new(place.directory, place.name, ownership, options.overwrite);
            let left_out = tree::read(&host, &source, &mut writer)?;
            writer.finish()?;
            Ok(left_out)
        }
        Feeder::Stream(file) => {
            let directory = root.open_at(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
            let directory = directory.context("a tar is unpacked in a directory")?;
            let mut writer = Writer::new(Root::from_fd(directory), None, ownership, options.overwrite);
            let left_out = read_tar(file, &mut writer)?;
            writer.finish()?;
            Ok(left_out)
        }
    }
}

/// Where what is copied lands.
struct Landing {
    directory: Root,
    /// What it is called there; without a name, its contents land in the directory itself.
    name: Option<OsString>,
}

impl Landing {
    /// Applies docker's table. Symlinks that the destination names are followed, inside its root.
    fn find(root: &Root, path: &Path, kind: FileType, source: &Source) -> Result<Self> {
        let find = || {
            let is_tree = kind == FileType::Directory;
            let text = path.as_os_str().as_bytes();
            let names_directory = text.ends_with(b"/") || text.ends_with(b"/.");
            match root.open_at(path, OFlags::PATH, Mode::empty()) {
                Ok(found) => {
                    let there = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
                    if there == FileType::Directory {
                        let name = if is_tree { source.name() } else { source.path.file_name().map(ToOwned::to_owned) };
                        return Ok(Self { directory: Root::from_fd(found), name });
                    }
                    if there != FileType::RegularFile {
                        // /dev/null, for one.
                        return Err(Error::invalid("the destination is neither a directory nor a regular file"));
                    }
                    if is_tree {
                        return Err(Error::new(Kind::Exists, "cannot copy a directory to a file"));
                    }
                    if names_directory {
                        return Err(Errno::NOTDIR.into());
                    }
                }
                Err(Errno::NOENT) if names_directory && !is_tree => {
                    return Err(Error::new(Kind::NotFound, "the destination directory must exist"));
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            // What the path leads to, without a symlink on the way: there it is made, or takes the old file's place.
            let place = root.follow_missing(path)?;
            let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
                return Err(Errno::NOTDIR.into());
            };
            let directory = match root.open_without_symlinks(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => {
                    return Err(Error::new(Kind::NotFound, format!("no such directory: {}", parent.display())));
                }
                answer => answer?,
            };
            Ok(Self { directory: Root::from_fd(directory), name: Some(name.to_owned()) })
        };
        find().map_err(|error: Error| error.context(format!("write to {}", path.display())))
    }
}

/// Reads a tar, also one that is packed with gzip or zstd.
fn read_tar(file: File, sink: &mut dyn Sink) -> Result<Vec<String>> {
    let limits = LayerLimits::default();
    let packed = BufReader::with_capacity(BLOCK_BYTES, file);
    let unpacked = BufReader::with_capacity(BLOCK_BYTES, Unpacked::new(packed, None, limits.bytes)?);
    let (mut reader, mut entry, mut left_out) = (Reader::new(unpacked), Entry::default(), Vec::new());
    while reader.next(&mut entry)? {
        let read = || {
            if matches!(entry.kind, EntryKind::Character | EntryKind::Block) {
                left_out.push(format!("{}: a device is not copied", entry.name()));
                return Ok(());
            }
            let segments = entry.sparse.clone();
            sink.put(&entry, &mut |take| reader.for_each_chunk(segments.as_deref(), |at, bytes| take(at, bytes)))
        };
        let mut read = read;
        read().map_err(|error: Error| error.context(entry.name()))?;
    }
    Ok(left_out)
}

/// Writes a tar.
struct Tar<W: std::io::Write> {
    writer: TarWriter<W>,
    /// What the top is called.
    name: Option<OsString>,
}

/// What a hole reads as.
const ZEROS: [u8; 4096] = [0; 4096];

impl<W: std::io::Write> Sink for Tar<W> {
    fn put(&mut self, entry: &Entry, feed: Feed<'_>) -> Result<()> {
        let top = self.name.as_ref().map(|name| name.as_bytes()).unwrap_or_default();
        let mut path = match (top, entry.path.as_slice()) {
            (b"", b"") => return Ok(()),
            (top, b"") => top.to_vec(),
            (b"", path) => path.to_vec(),
            (top, path) => [top, b"/", path].concat(),
        };
        if entry.kind == EntryKind::Directory {
            path.push(b'/');
        }
        self.writer.entry(&Entry { path, ..entry.clone() })?;
        if entry.kind != EntryKind::Regular {
            return Ok(());
        }
        let mut position = 0;
        let writer = &mut self.writer;
        let fill = |writer: &mut TarWriter<W>, from: u64, to: u64| -> Result<()> {
            let mut left = to - from;
            while left > 0 {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
                writer.data(&ZEROS[..length])?;
                left -= length as u64;
            }
            Ok(())
        };
        feed(&mut |at, bytes| {
            fill(writer, position, at)?;
            position = at + bytes.len() as u64;
            writer.data(bytes)
        })?;
        fill(writer, position, entry.size)
    }
}
