//! How far a pull has come: one line that is written over on a terminal, a few lines elsewhere, nothing where asked.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::report;
use crate::engine::images::pull::Progress;
use crate::image::digest::Digest;

/// How often a terminal is written to.
const PAUSE: Duration = Duration::from_millis(100);

/// The progress of one pull.
pub(super) struct Bar {
    is_terminal: bool,
    is_quiet: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes to fetch and bytes here.
    layers: HashMap<Digest, (u64, u64)>,
    done: usize,
    shown: Option<Instant>,
}

impl Bar {
    pub(super) fn new(is_quiet: bool) -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), is_quiet, state: Mutex::default() }
    }

    /// Tells what has happened. May be called from several threads.
    pub(super) fn show(&self, progress: Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Warning(text) => report::note(&format!("registry: {text}")),
            _ if self.is_quiet => {}
            Progress::Asking { reference } => self.line(&format!("Pulling {reference}")),
            Progress::Chosen { layers } => {
                state.layers = layers.into_iter().map(|(digest, size)| (digest, (size, 0))).collect();
            }
            Progress::Waiting { digest } => self.line(&format!("{}: another pull fetches it", short(&digest))),
            Progress::Fetched { digest, bytes } => {
                if let Some((_, here)) = state.layers.get_mut(&digest) {
                    *here += bytes;
                }
                self.draw(&mut state, false);
            }
            Progress::Done { digest } => {
                state.done += 1;
                if self.is_terminal {
                    self.draw(&mut state, true);
                } else {
                    self.line(&format!("{}: done", short(&digest)));
                }
            }
        }
    }

    /// Takes the line away again.
    pub(super) fn clear(&self) {
        if self.is_terminal && !self.is_quiet {
            write("\r\x1b[K");
        }
    }

    fn line(&self, text: &str) {
        self.clear();
        write(&format!("{text}\n"));
    }

    fn draw(&self, state: &mut State, is_due: bool) {
        if !self.is_terminal || !is_due && state.shown.is_some_and(|shown| shown.elapsed() < PAUSE) {
            return;
        }
        state.shown = Some(Instant::now());
        let (size, here) = state.layers.values().fold((0, 0), |(size, here), layer| (size + layer.0, here + layer.1));
        let (layers, megabyte) = (state.layers.len(), 1_000_000.0);
        #[expect(clippy::cast_precision_loss, reason = "shown with one place")]
        let (size, here) = (size as f64 / megabyte, here.min(size) as f64 / megabyte);
        write(&format!("\r\x1b[K{}/{layers} layers, {here:.1} MB of {size:.1} MB", state.done));
    }
}

/// Tells the user one thing, on a line of its own.
pub(super) fn say(text: &str) {
    write(&format!("{text}\n"));
}

fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}

/// A terminal that is gone is no reason to stop.
fn write(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
