//! `husk search`: what registries hold, in docker's columns, and a repository's tags in podman's.

use clap::Args;
use serde_json::json;

use super::filter::{Filters, Key};
use super::format::{Columns, Format, Row, ellipsis};
use super::image_list::object;
use super::images::Remote;
use super::printer;
use super::status::Status;
use crate::engine::images::search;
use crate::engine::settings::{self, Settings};
use crate::error::{Error, Result};
use crate::image::reference::Reference;

const HITS: Columns = Columns {
    headers: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    quiet: "{{.Name}}",
};

const TAGS: Columns =
    Columns { headers: &[("Name", "NAME"), ("Tag", "TAG")], table: "{{.Name}}\t{{.Tag}}", quiet: "{{.Tag}}" };

const KEYS: &[Key] = &[Key::new("is-official"), Key::new("is-automated"), Key::new("stars")];

/// Letters of a description that the table shows.
const DESCRIPTION_LETTERS: usize = 45;

/// Search a registry for images
///
/// TERM may begin with a registry; without one, docker.io is searched. Where a registry has no search, its catalogue is.
#[derive(Debug, Args)]
pub(super) struct Search {
    /// `is-official=BOOL`, `is-automated=BOOL` or `stars=NUMBER` at least
    #[arg(long, short, value_name = "FILTER")]
    filter: Vec<String>,
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Most results
    #[arg(long, value_name = "NUMBER", default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print descriptions in full
    #[arg(long)]
    no_trunc: bool,
    /// List the tags of the repository that TERM names
    #[arg(long)]
    list_tags: bool,
    #[command(flatten)]
    remote: Remote,
    /// What to search for
    #[arg(value_name = "TERM")]
    term: String,
}

/// Runs `search`.
pub(super) fn run(args: &Search) -> Result<Status> {
    let settings = Settings::load(settings::File::default(), &settings::Caller::current())?;
    let (options, limit) = (args.remote.options()?, usize::from(args.limit));
    if args.list_tags {
        let format = Format::choose(&TAGS, args.format.as_deref(), false)?;
        let name = Reference::parse(args.term.strip_prefix("docker://").unwrap_or(&args.term))?;
        let tags = search::tags(&settings, &name, limit, &options)?;
        let name = name.repository().to_string();
        let rows = tags.iter().map(|tag| Row { fields: object(json!({"Name": name, "Tag": tag})), ..Row::default() });
        printer::print(&format.print(rows)?)?;
        return Ok(Status::Success);
    }
    let format = Format::choose(&HITS, args.format.as_deref(), false)?;
    let filters = Filters::parse(&args.filter, KEYS)?;
    let (official, automated) = (filters.flag("is-official")?, filters.flag("is-automated")?);
    let stars = filters
        .values("stars")
        .map(|text| text.parse::<u64>().map_err(|_| Error::invalid(format!("filter stars={text}: not a number"))));
    let stars = stars.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or_default();
    let mut hits = search::search(&settings, &args.term, limit, &options)?;
    hits.retain(|hit| {
        official.is_none_or(|wanted| wanted == hit.is_official)
            && automated.is_none_or(|wanted| wanted == hit.is_automated)
            && hit.star_count >= stars
    });
    hits.truncate(limit);
    let mark = |is_so: bool| if is_so { "[OK]" } else { "" };
    let rows = hits.iter().map(|hit| {
        let description = hit.description.replace(['\n', '\r'], " ");
        let fields = json!({
            "Name": hit.name,
            "Description": if args.no_trunc { description } else { ellipsis(&description, DESCRIPTION_LETTERS) },
            "StarCount": hit.star_count.to_string(),
            "IsOfficial": mark(hit.is_official),
            "IsAutomated": mark(hit.is_automated),
        });
        Row { fields: object(fields), ..Row::default() }
    });
    printer::print(&format.print(rows)?)?;
    Ok(Status::Success)
}
