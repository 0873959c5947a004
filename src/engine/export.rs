//! `export`: the root file system of a container as a tar, without what is mounted in it.

use std::io::Write;

use super::engine::Engine;
use super::record::Container;
use super::view::View;
use crate::error::{Context, Result};
use crate::image::digest::Algorithm;
use crate::image::media::Compression;
use crate::image::write::{Changing, Settings, write_tree};
use crate::runtime::tree::Access;
use crate::sys::mount::Reach;

/// A container whose files can be written.
pub struct Export<'e> {
    engine: &'e Engine,
    container: Container,
    view: View<'e>,
}

impl<'e> Export<'e> {
    /// Finds a container, and its files.
    pub fn find(engine: &'e Engine, reference: &str) -> Result<Self> {
        let container = engine.find(reference)?;
        let view = View::find(engine, &container, Reach::One, Access::Read)?;
        Ok(Self { engine, container, view })
    }

    /// Writes the files to `out`; none is younger than `latest`, in seconds since 1970. Gives the paths of sockets, which a
    /// tar cannot hold.
    pub fn write(&self, latest: Option<i64>, out: impl Write) -> Result<Vec<Vec<u8>>> {
        let settings = Settings {
            compression: Compression::None,
            algorithm: Algorithm::Sha256,
            ownership: self.engine.form().ownership,
            latest,
            with_fractions: false,
            // It may be running: what grows meanwhile is as long as it was.
            changing: Changing::Fill,
        };
        let write = |root: &_| {
            let (mut out, written) = write_tree(root, &settings, out)?;
            out.flush().context("write the tar")?;
            Ok(written.left_out)
        };
        self.view.with(write).with_context(|| format!("export container {}", self.container.id().short()))
    }
}
