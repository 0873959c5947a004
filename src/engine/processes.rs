//! Which processes are a container's: those of its cgroup, or where it has none (an ordinary user without a delegated one) those
//! of its PID namespace. Names them; what they do is for others to read.

use std::path::Path;

use super::engine::Engine;
use super::record::Container;
use crate::error::{Context, Result};

/// Gives them by their numbers here, in no order.
pub fn processes(engine: &Engine, container: &Container) -> Result<Vec<i32>> {
    let runtime = engine.runtime(false)?;
    let id = container.id().as_str();
    let pids = runtime.processes(id)?;
    if pids.is_empty() { in_namespace_of(runtime.state(id)?.pid) } else { Ok(pids) }
}

/// Looks for processes with the PID namespace of this one; nothing where that is ours, and says nothing about a container.
fn in_namespace_of(init: i32) -> Result<Vec<i32>> {
    let namespace = |pid: &str| std::fs::read_link(Path::new("/proc").join(pid).join("ns/pid")).ok();
    let Some(wanted) = namespace(&init.to_string()).filter(|wanted| namespace("self").as_ref() != Some(wanted)) else {
        return Ok(Vec::new());
    };
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").context("list /proc")? {
        let name = entry.context("list /proc")?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Ok(pid) = name.parse()
            && namespace(name).as_ref() == Some(&wanted)
        {
            pids.push(pid);
        }
    }
    Ok(pids)
}
