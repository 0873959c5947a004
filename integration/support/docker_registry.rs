//! Debian's docker-registry on loopback, with its files in a directory of the caller's. Knows neither tests nor images.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One that runs; it ends when this is dropped.
pub(crate) struct DockerRegistry {
    child: Child,
    port: u16,
}

impl DockerRegistry {
    /// Starts one that keeps what it has below `root`; `more` are further lines of its configuration.
    #[track_caller]
    pub(crate) fn start(root: &Path, more: &str) -> Self {
        let storage = root.join("data");
        std::fs::create_dir_all(&storage).expect("make a directory");
        // The port is free now, and taken in a moment.
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).expect("a free port").port();
        let configuration = root.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n{more}",
            storage.display()
        );
        #[expect(clippy::disallowed_methods, reason = "a fixture is made anew for each run")]
        std::fs::write(&configuration, text).expect("write the registry's configuration");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry");
        let registry = Self { child, port };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        registry
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
