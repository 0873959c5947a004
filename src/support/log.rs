//! Records for debugging, from anywhere to wherever the command line wants them.
//!
//! Off unless [`enable`]d, and then a record costs the look at one word: its text is not even made. Errors do not come
//! this way: they are returned, and told once by whoever typed the command.

use std::sync::OnceLock;

type Sink = Box<dyn Fn(&str) + Send + Sync>;

static SINK: OnceLock<Sink> = OnceLock::new();

/// Sends records to `sink` from now on. The first who asks is served.
pub fn enable(sink: Sink) {
    let _ = SINK.set(sink);
}

/// Records what is being done.
pub fn debug(text: impl FnOnce() -> String) {
    if let Some(sink) = SINK.get() {
        sink(&text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn nothing_is_made_while_nobody_listens() {
        static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        debug(|| unreachable!("nobody listens"));
        enable(Box::new(|text| HEARD.lock().unwrap().push(text.to_owned())));
        debug(|| "one".to_owned());
        assert!(HEARD.lock().unwrap().contains(&"one".to_owned()));
    }
}
