//! The figures of a container's resctrl group, in the shape of runc's `intel_rdt` of `events`.

use std::path::Path;

use rustix::io::Errno;
use serde::Serialize;

use super::file::read_value;
use super::resctrl::Group;
use crate::error::{Context, Result};

/// What the group has, and what it uses. Without a group, an empty object.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ResctrlStats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<L3CacheInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_schema_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<MemoryBandwidthInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_schema_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_schema: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schemata: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<Bandwidth>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct L3CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct MemoryBandwidthInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

/// Bytes between one cache and the memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

/// Bytes in one cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

impl Group {
    /// Reads the figures.
    pub fn stats(&self) -> Result<ResctrlStats> {
        let (root, path, counters) = self.places();
        let lines = |directory: &Path| -> Result<Vec<String>> {
            Ok(text(&directory.join("schemata"))?.lines().map(|line| line.trim().to_owned()).collect())
        };
        let (roots, schemata) = (lines(root)?, lines(path)?);
        let line_of = |lines: &[String], name: &str| {
            lines.iter().find(|line| line.starts_with(name) && line[name.len()..].starts_with(':')).cloned()
        };
        let mut stats = ResctrlStats::default();
        if self.allocates("L3") {
            let info = root.join("info/L3");
            stats.l3_cache_info = Some(L3CacheInfo {
                cbm_mask: text(&info.join("cbm_mask"))?,
                min_cbm_bits: number(&info.join("min_cbm_bits"))?,
                num_closids: number(&info.join("num_closids"))?,
            });
            (stats.l3_cache_schema_root, stats.l3_cache_schema) = (line_of(&roots, "L3"), line_of(&schemata, "L3"));
        }
        if self.allocates("MB") {
            let info = root.join("info/MB");
            stats.mem_bw_info = Some(MemoryBandwidthInfo {
                bandwidth_gran: number(&info.join("bandwidth_gran"))?,
                delay_linear: number(&info.join("delay_linear"))?,
                min_bandwidth: number(&info.join("min_bandwidth"))?,
                num_closids: number(&info.join("num_closids"))?,
            });
            (stats.mem_bw_schema_root, stats.mem_bw_schema) = (line_of(&roots, "MB"), line_of(&schemata, "MB"));
        }
        stats.schemata = schemata;
        let features = match read_value(&root.join("info/L3_MON/mon_features")) {
            Err(Errno::NOENT) => String::new(),
            answer => answer.context("read info/L3_MON/mon_features")?,
        };
        let has = |feature: &str| features.lines().any(|line| line == feature);
        let (counts_bytes, counts_occupancy) = (has("mbm_total_bytes") || has("mbm_local_bytes"), has("llc_occupancy"));
        if counts_bytes || counts_occupancy {
            read_counters(counters, counts_bytes, counts_occupancy, &mut stats)?;
        }
        Ok(stats)
    }
}

/// One directory of counters a cache: `mon_data/mon_L3_00`.
fn read_counters(group: &Path, counts_bytes: bool, counts_occupancy: bool, stats: &mut ResctrlStats) -> Result<()> {
    let place = group.join("mon_data");
    let entries = std::fs::read_dir(&place).with_context(|| format!("open {}", place.display()))?;
    let mut caches = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("read {}", place.display()))?;
    caches.sort_unstable();
    let count = |path: &Path, name: &str| counter(&path.join(name));
    if counts_bytes {
        let read = |path: &Path| -> Result<Bandwidth> {
            let (mbm_total_bytes, mbm_local_bytes) = (count(path, "mbm_total_bytes")?, count(path, "mbm_local_bytes")?);
            Ok(Bandwidth { mbm_total_bytes, mbm_local_bytes })
        };
        stats.mbm_stats = Some(caches.iter().map(|path| read(path)).collect::<Result<_>>()?);
    }
    if counts_occupancy {
        let read = |path: &Path| Ok(Occupancy { llc_occupancy: count(path, "llc_occupancy")? });
        stats.cmt_stats = Some(caches.iter().map(|path| read(path)).collect::<Result<_>>()?);
    }
    Ok(())
}

/// A counter that the machine lacks, or cannot read now (`Unavailable`), counts nothing.
fn counter(path: &Path) -> Result<u64> {
    match read_value(path) {
        Err(Errno::NOENT) => Ok(0),
        answer => Ok(answer.with_context(|| format!("read {}", path.display()))?.parse().unwrap_or(0)),
    }
}

fn text(path: &Path) -> Result<String> {
    read_value(path).with_context(|| format!("read {}", path.display()))
}

fn number(path: &Path) -> Result<u64> {
    text(path)?.parse().with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::resctrl::plan;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a fixture is made anew for each run")]
    fn figures_have_runcs_shape() {
        let tree = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n"),
            ("info/L3/cbm_mask", "fffff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "1\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("info/MB/num_closids", "8\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
            ("box/schemata", "    MB:0= 20;1= 70\n    L3:0=007f0;1=0001f\n"),
            ("box/mon_data/mon_L3_00/llc_occupancy", "4096\n"),
            ("box/mon_data/mon_L3_00/mbm_total_bytes", "7\n"),
            ("box/mon_data/mon_L3_00/mbm_local_bytes", "Unavailable\n"),
        ] {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let group = plan(tree.path(), "box", &serde_json::from_value(json!({})).unwrap()).unwrap().group().clone();
        assert_eq!(
            serde_json::to_value(group.stats().unwrap()).unwrap(),
            json!({
                "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
                "l3_cache_schema_root": "L3:0=fffff;1=fffff",
                "l3_cache_schema": "L3:0=007f0;1=0001f",
                "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
                "mem_bw_schema_root": "MB:0=100;1=100",
                "mem_bw_schema": "MB:0= 20;1= 70",
                "schemata": ["MB:0= 20;1= 70", "L3:0=007f0;1=0001f"],
                "mbm_stats": [{"mbm_total_bytes": 7, "mbm_local_bytes": 0}],
                "cmt_stats": [{"llc_occupancy": 4096}],
            })
        );
    }
}
