//! What `--log-opt tag`, `labels` and `env` add to each line of a log: docker's `attrs` of `json-file`. Writes none.

use std::collections::BTreeMap;

use super::options::sparse;
use super::record::Record;
use crate::error::{Error, Result};

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

/// Gives the attributes of a container's lines as a JSON object; nothing where there are none.
pub(super) fn of(record: &Record, hostname: &str, environment: &[String]) -> String {
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
    if let Some(tag) = &wanted.tag {
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
        attributes.insert("tag".to_owned(), tag.unwrap_or_default());
    }
    let text = serde_json::to_string(&attributes).unwrap_or_default();
    if attributes.is_empty() || text.len() > MOST_BYTES { String::new() } else { text }
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
