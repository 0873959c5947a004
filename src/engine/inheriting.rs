//! `--volumes-from`: what another container has mounted becomes what was asked for.
//!
//! Its binds and named volumes are taken as they were asked for there; its own directories (anonymous volumes) by their
//! path, since they are gone with it.

use std::path::Path;

use oci_spec::runtime::Spec;

use super::engine::Engine;
use super::options::RunOptions;
use super::volume_option::{Volume, VolumeSource, VolumesFrom};
use crate::error::{Context, Result};
use crate::spec::load;

/// Puts the other containers' volumes in the place of their names. What is asked for at the same destination wins.
pub fn resolve(engine: &Engine, options: &mut RunOptions) -> Result<()> {
    for from in std::mem::take(&mut options.volumes_from) {
        for volume in volumes_of(engine, &from).with_context(|| format!("volumes-from {}", from.container))? {
            let is_taken = options.volumes.iter().any(|asked| asked.destination == volume.destination)
                || options.tmpfs.iter().any(|asked| asked.destination == volume.destination);
            if !is_taken {
                options.volumes.push(volume);
            }
        }
    }
    Ok(())
}

fn volumes_of(engine: &Engine, from: &VolumesFrom) -> Result<Vec<Volume>> {
    let container = engine.find(&from.container)?;
    let record = container.record()?;
    let directory = engine.container_directory(container.id());
    let spec = load::load(&directory.join("bundle"))?.value;
    let named = record.options.volumes.into_iter().filter(|volume| volume.source != VolumeSource::Anonymous);
    let mut volumes: Vec<Volume> = named.chain(anonymous(&spec, &directory.join("volumes"))).collect();
    if from.is_read_only {
        for volume in &mut volumes {
            volume.is_read_only = true;
        }
    }
    Ok(volumes)
}

/// Finds the binds of a container's own directories.
fn anonymous(spec: &Spec, directory: &Path) -> Vec<Volume> {
    let binds = spec.mounts().iter().flatten().filter_map(|mount| {
        let source = mount.source().as_ref().filter(|source| source.parent() == Some(directory))?;
        Some(Volume {
            source: VolumeSource::Host(source.clone()),
            destination: mount.destination().to_string_lossy().into_owned(),
            ..Volume::default()
        })
    });
    binds.collect()
}
