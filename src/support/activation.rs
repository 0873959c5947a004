//! What a socket-activating service manager passes to this process (sd_listen_fds(3)).

/// Gives how many descriptors, from 3 on.
pub fn passed_descriptors() -> u32 {
    let read = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    match read("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => read("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}
