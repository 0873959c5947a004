//! What `--log-opt tag`, `labels` and `env` add to each line of a log: docker's `attrs` of `json-file`, and its fields of
//! `journald`. Writes none.

use std::collections::BTreeMap;

use super::options::sparse;
use super::record::Record;
use crate::error::{Error, Result};
use crate::monitor::log::Format;
use crate::support::journal;

sparse! {
    /// What was asked for.
    pub struct LogAttributes {
        /// A text with docker's fields, such as `{{.Name}}`.
        pub tag: Option<String>,
        /// Labels of the container, where it has them.
        pub labels: Vec<String>,
        /// Variables of its environment, where it has them.
        pub env: Vec<String>,
    }
}

/// They are in every line; what is larger is left out, for who reads takes no lines without bounds.
const MOST_BYTES: usize = 64 << 10;

/// What a tag may name. Docker takes any Go template; logs have these.
const FIELDS: [&str; 8] = ["ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "Hostname", "DaemonName"];

/// Makes sure that a tag names nothing that there is not.
pub(super) fn check_tag(tag: &str) -> Result<()> {
    let unknown =
        |field: &str| Error::invalid(format!("log-opt tag={tag}: {field} is none of .{}", FIELDS.join(", .")));
    expand(tag, &|field| if FIELDS.contains(&field) { Ok(String::new()) } else { Err(unknown(field)) }).map(drop)
}

/// Gives what each of a container's lines says of it, as its log has it; nothing where that is nothing.
pub(super) fn of(record: &Record, hostname: &str, environment: &[String]) -> Vec<u8> {
    let wanted = &record.options.log_attributes;
    let mut attributes = BTreeMap::new();
    for name in &wanted.labels {
        if let Some(value) = record.labels.get(name) {
            attributes.insert(name.clone(), value.clone());
        }
    }
    for name in &wanted.env {
        let value = environment.iter().find_map(|entry| entry.strip_prefix(name.as_str())?.strip_prefix('='));
        if let Some(value) = value {
            attributes.insert(name.clone(), value.to_owned());
        }
    }
    let tag = wanted.tag.as_ref().map(|tag| expanded(tag, record, hostname));
    match record.options.log.format {
        Format::Json => json(attributes, tag),
        Format::Journald => journal_fields(record, &attributes, tag),
        Format::K8s | Format::None | Format::Passthrough => Vec::new(),
    }
}

fn json(mut attributes: BTreeMap<String, String>, tag: Option<String>) -> Vec<u8> {
    attributes.extend(tag.map(|tag| ("tag".to_owned(), tag)));
    let text = serde_json::to_vec(&attributes).unwrap_or_default();
    if attributes.is_empty() || text.len() > MOST_BYTES { Vec::new() } else { text }
}

/// Docker's fields. Its tag is the short id where none was asked for.
fn journal_fields(record: &Record, attributes: &BTreeMap<String, String>, tag: Option<String>) -> Vec<u8> {
    let (id, full_id) = (record.id.short(), record.id.as_str());
    let tag = tag.unwrap_or_else(|| id.to_owned());
    let fields = [
        ("CONTAINER_ID", id),
        ("CONTAINER_ID_FULL", full_id),
        ("CONTAINER_NAME", record.name.as_str()),
        ("CONTAINER_TAG", &tag),
        ("IMAGE_NAME", &record.image),
        ("SYSLOG_IDENTIFIER", &tag),
    ];
    let mut known = Vec::new();
    for (name, value) in fields {
        journal::put_field(&mut known, name, value.as_bytes());
    }
    let mut all = known.clone();
    for (name, value) in attributes {
        let name = journal::field_name(name).filter(|name| fields.iter().all(|(known, _)| known != name));
        if let Some(name) = name {
            journal::put_field(&mut all, &name, value.as_bytes());
        }
    }
    if all.len() > MOST_BYTES { known } else { all }
}

fn expanded(tag: &str, record: &Record, hostname: &str) -> String {
    let image = record.image_id.as_deref().unwrap_or_default();
    let digits = image.rsplit(':').next().unwrap_or_default();
    let tag = expand(tag, &|field| {
        Ok(match field {
            "ID" => record.id.short().to_owned(),
            "FullID" => record.id.to_string(),
            "Name" => record.name.to_string(),
            "ImageID" => digits.chars().take(12).collect(),
            "ImageFullID" => image.to_owned(),
            "ImageName" => record.image.clone(),
            "Hostname" => hostname.to_owned(),
            "DaemonName" => "husk".to_owned(),
            _ => String::new(),
        })
    });
    tag.unwrap_or_default()
}

fn expand(tag: &str, value: &dyn Fn(&str) -> Result<String>) -> Result<String> {
    let mut text = String::new();
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once("{{") {
        let (field, after) =
            after.split_once("}}").ok_or_else(|| Error::invalid(format!("log-opt tag={tag}: a {{{{ is not closed")))?;
        text.push_str(before);
        let field = field.trim();
        text.push_str(&value(field.strip_prefix('.').unwrap_or(field))?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_what_there_is() {
        for tag in ["", "web", "{{.Name}}", "{{ .ImageName }}/{{.Name}}/{{.ID}}"] {
            assert!(check_tag(tag).is_ok(), "{tag}");
        }
        for tag in ["{{.Name", "{{.Command}}", "{{}}", "{{.Name | upper}}"] {
            assert!(check_tag(tag).is_err(), "{tag}");
        }
        let upper = |field: &str| Ok(field.to_uppercase());
        assert_eq!(expand("a{{.b}}c{{ .d }}", &upper).unwrap(), "aBcD");
    }
}
