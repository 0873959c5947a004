//! How far a pull has come: one line that is written over on a terminal, a few lines elsewhere; JSON or nothing where asked.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::json;

use super::report;
use crate::engine::images::pull::Progress;
use crate::image::digest::Digest;

/// How often a terminal is written to.
const PAUSE: Duration = Duration::from_millis(100);

/// How progress is told, on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// One line on a terminal, lines elsewhere
    #[default]
    Auto,
    /// Lines
    Plain,
    /// A JSON object a line, with docker's fields
    Json,
    /// Nothing
    None,
}

/// The progress of a pull. A command that pulls nothing makes no call for it.
pub(super) struct Bar {
    mode: Mode,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes to fetch and bytes here.
    layers: HashMap<Digest, (u64, u64)>,
    done: usize,
    /// A line that is written over may stand there. An ordinary user's layers are fetched by another process, which draws it:
    /// who began knows only that it may be there.
    is_drawing: bool,
    shown: Option<Instant>,
}

impl Bar {
    pub(super) fn new(is_quiet: bool) -> Self {
        Self::with(if is_quiet { Mode::None } else { Mode::Auto })
    }

    pub(super) fn with(mode: Mode) -> Self {
        Self { mode, state: Mutex::default() }
    }

    /// Tells what has happened. May be called from several threads.
    pub(super) fn show(&self, progress: Progress) {
        let mut state = self.state();
        match progress {
            progress if self.mode == Mode::Json => state.tell_json(progress),
            Progress::Warning(text) => {
                state.clear();
                report::note(&format!("registry: {text}"));
            }
            _ if self.mode == Mode::None => {}
            Progress::Asking { reference } => state.line(&format!("Pulling {reference}")),
            Progress::Chosen { layers } => {
                state.done = 0;
                state.is_drawing = self.mode == Mode::Auto && std::io::stderr().is_terminal();
                state.layers = layers.into_iter().map(|(digest, size)| (digest, (size, 0))).collect();
            }
            Progress::Waiting { digest } => state.line(&format!("{}: another pull fetches it", short(&digest))),
            Progress::Fetched { digest, bytes } => {
                if let Some((_, here)) = state.layers.get_mut(&digest) {
                    *here += bytes;
                }
                if state.is_drawing && state.shown.is_none_or(|shown| shown.elapsed() >= PAUSE) {
                    state.draw();
                }
            }
            Progress::Done { digest } => {
                state.done += 1;
                if state.is_drawing {
                    state.draw();
                } else {
                    state.line(&format!("{}: done", short(&digest)));
                }
            }
            Progress::Finished => {
                state.clear();
                state.is_drawing = false;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What failed leaves its line to nobody else.
impl Drop for Bar {
    fn drop(&mut self) {
        self.state().clear();
    }
}

impl State {
    /// Takes the line away that is written over.
    fn clear(&self) {
        if self.is_drawing {
            write("\r\x1b[K");
        }
    }

    fn line(&self, text: &str) {
        self.clear();
        say(text);
    }

    /// The stream of docker's API (`JSONMessage`): a layer's bytes at most ten times a second.
    fn tell_json(&mut self, progress: Progress) {
        let line = match progress {
            Progress::Warning(text) => json!({ "status": "Warning", "message": text }),
            Progress::Asking { reference } => json!({ "status": "Pulling", "id": reference }),
            Progress::Chosen { layers } => {
                self.layers = layers.into_iter().map(|(digest, size)| (digest, (size, 0))).collect();
                json!({ "status": "Pulling layers", "layers": self.layers.len() })
            }
            Progress::Waiting { digest } => json!({ "status": "Waiting", "id": short(&digest) }),
            Progress::Fetched { digest, bytes } => {
                let Some((size, here)) = self.layers.get_mut(&digest) else { return };
                *here += bytes;
                let detail = json!({ "current": *here, "total": *size });
                if *here < *size && self.shown.is_some_and(|shown| shown.elapsed() < PAUSE) {
                    return;
                }
                self.shown = Some(Instant::now());
                json!({ "status": "Downloading", "id": short(&digest), "progressDetail": detail })
            }
            Progress::Done { digest } => json!({ "status": "Pull complete", "id": short(&digest) }),
            Progress::Finished => json!({ "status": "Finished" }),
        };
        say(&line.to_string());
    }

    fn draw(&mut self) {
        self.shown = Some(Instant::now());
        let (size, here) = self.layers.values().fold((0, 0), |(size, here), layer| (size + layer.0, here + layer.1));
        let (layers, megabyte) = (self.layers.len(), 1_000_000.0);
        #[expect(clippy::cast_precision_loss, reason = "shown with one place")]
        let (size, here) = (size as f64 / megabyte, here.min(size) as f64 / megabyte);
        write(&format!("\r\x1b[K{}/{layers} layers, {here:.1} MB of {size:.1} MB", self.done));
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
