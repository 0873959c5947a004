//! A container that runs while a test looks at it, and is deleted when the test is done with it.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::husk::Running;
use super::{Bundle, Invocation, Scene};

/// A bundle, started in the foreground.
pub(crate) struct Guest<'a> {
    scene: &'a Scene,
    pub(crate) bundle: Bundle<'a>,
    running: Option<Running<'a>>,
}

impl<'a> Guest<'a> {
    /// Starts a bundle whose process says "up" and waits.
    pub(crate) fn start(scene: &'a Scene, mut bundle: Bundle<'a>) -> Self {
        bundle.args(["/probe", "--quiet", "--echo", "up", "--block"]);
        let mut running = bundle.command().start();
        running.line_with("up");
        let guest = Self { scene, bundle, running: Some(running) };
        // The process may be quicker than the runtime that writes down its number.
        let deadline = Instant::now() + Duration::from_secs(5);
        while guest.state()["status"] != "running" {
            assert!(Instant::now() < deadline, "the container is not running: {}", guest.state());
            std::thread::sleep(Duration::from_millis(1));
        }
        guest
    }

    /// What `state` says.
    pub(crate) fn state(&self) -> Value {
        let state = self.scene.runtime().args(["state", &self.bundle.id]).run().success();
        serde_json::from_str(&state.stdout).expect("state prints JSON")
    }

    /// The host's number of its first process.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.state()["pid"].as_i64().expect("the state has a pid")).expect("pids are small")
    }

    /// `exec FLAGS ID WORDS`, not yet started.
    pub(crate) fn exec(&self, flags: &[&str], words: &[&str]) -> Invocation<'a> {
        let mut command = self.scene.runtime();
        command.arg("exec").args(flags).arg(&self.bundle.id).args(words);
        command
    }

    /// Executes the probe and gives its report.
    #[track_caller]
    pub(crate) fn report(&self, flags: &[&str], words: &[&str]) -> Value {
        let words: Vec<&str> = ["/probe"].into_iter().chain(words.iter().copied()).collect();
        self.exec(flags, &words).run().success().report()
    }

    fn delete(&self) {
        self.scene.runtime().args(["delete", "--force", &self.bundle.id]).run();
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.delete();
            // Of a test that failed already, the first failure is the one to tell.
            if !std::thread::panicking() {
                running.finish();
            }
        }
    }
}
