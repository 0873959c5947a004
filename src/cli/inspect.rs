//! `husk inspect`, `husk container inspect`, `husk image inspect`, and the `exists` of both: what is known of things, for
//! scripts.

use clap::{Args, ValueEnum};
use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::network;
use super::printer;
use super::report;
use super::status::Status;
use super::template::{Template, unescape};
use super::volume;
use crate::engine::containers::Containers;
use crate::engine::engine::Engine;
use crate::engine::images::{find, inspect as images};
use crate::engine::{inspect as containers, settings};
use crate::error::{Kind, Result};

/// Show all that is known of containers, images, networks and volumes
///
/// A word is looked up as a container first, then as an image, a network and a volume. Prints an array of JSON objects with docker's fields, or a line of
/// the template for each.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    #[command(flatten)]
    how: How,
    /// What the words are: container, image, volume or network
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Type>,
    /// Show what containers take of the disk
    #[arg(long, short)]
    size: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER|IMAGE")]
    words: Vec<String>,
}

/// Show all that is known of containers
///
/// Prints an array of JSON objects with docker's fields, or a line of the template for each.
#[derive(Debug, Args)]
pub(super) struct InspectContainer {
    #[command(flatten)]
    how: How,
    /// Show what they take of the disk
    #[arg(long, short)]
    size: bool,
    /// Names or ids of the containers
    #[arg(required = true, value_name = "CONTAINER")]
    words: Vec<String>,
}

/// Show all that is known of images
///
/// Prints an array of JSON objects with docker's fields, or a line of the template for each.
#[derive(Debug, Args)]
pub(super) struct InspectImage {
    #[command(flatten)]
    how: How,
    /// Names or ids of the images
    #[arg(required = true, value_name = "IMAGE")]
    words: Vec<String>,
}

#[derive(Debug, Args)]
struct How {
    /// `json`, or a template
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    Container,
    Image,
    Volume,
    Network,
}

/// Tell by the status whether an image is here: 0 if it is, 1 if not
#[derive(Debug, Args)]
pub(super) struct Exists {
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Tell by the status whether there is a container: 0 if there is, 1 if not
#[derive(Debug, Args)]
pub(super) struct ContainerExists {
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Runs `inspect`.
pub(super) fn run(args: &Inspect) -> Result<Status> {
    let Inspect { how, kind, size, words } = args;
    describe(how, *kind, *size, words)
}

/// Runs `container inspect`.
pub(super) fn run_container(args: &InspectContainer) -> Result<Status> {
    let InspectContainer { how, size, words } = args;
    describe(how, Some(Type::Container), *size, words)
}

/// Runs `image inspect`.
pub(super) fn run_image(args: &InspectImage) -> Result<Status> {
    let InspectImage { how, words } = args;
    describe(how, Some(Type::Image), false, words)
}

fn describe(how: &How, kind: Option<Type>, size: bool, words: &[String]) -> Result<Status> {
    let template = template(how.format.as_deref())?;
    let engine = Engine::open(settings::File::default())?;
    let all = engine.containers()?;
    let (mut found, mut status) = (Vec::new(), Status::Success);
    for word in words {
        match find_one(&engine, &all, kind, size, word) {
            Ok(described) => found.push(described),
            // The others are shown.
            Err(error) => {
                report::engine_error(&error);
                status = Status::Failure;
            }
        }
    }
    // One that has an address, as docker's answer has it.
    let is_linked = |described: &Value| {
        let networks = described["NetworkSettings"]["Networks"].as_object();
        networks.is_some_and(|networks| networks.values().any(|network| network["EndpointID"] != ""))
    };
    if found.iter().any(is_linked) {
        network::tell_lost_rules(&engine);
    }
    let text = match template {
        None => array(&mut found)?,
        Some(template) => {
            // To docker's templates it has both names; the document has one.
            if how.format.as_ref().is_some_and(|text| text.contains(".ID")) {
                for described in &mut found {
                    described["ID"] = described["Id"].clone();
                }
            }
            let lines = found.iter().map(|described| Ok(template.render(described)? + "\n"));
            lines.collect::<Result<String>>()?
        }
    };
    printer::print(&text)?;
    Ok(status)
}

fn template(format: Option<&str>) -> Result<Option<Template>> {
    match format {
        None => Ok(None),
        Some("json") => Template::parse("{{json .}}").map(Some),
        Some(text) => Template::parse(&unescape(text)).map(Some),
    }
}

/// Shows all that is known of things of one kind, by their names. Where one fails, the others are shown, and the last
/// failure is the command's.
pub(super) fn each(format: Option<&str>, words: &[String], describe: impl Fn(&str) -> Result<Value>) -> Result<Status> {
    let template = template(format)?;
    let (mut found, mut failure) = (Vec::new(), None);
    for word in words {
        match describe(word) {
            Ok(described) => found.push(described),
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    report::engine_error(&earlier);
                }
            }
        }
    }
    let text = match template {
        None => array(&mut found)?,
        Some(template) => found.iter().map(|one| Ok(template.render(one)? + "\n")).collect::<Result<String>>()?,
    };
    printer::print(&text)?;
    failure.map_or(Ok(Status::Success), Err)
}

fn find_one(engine: &Engine, all: &Containers, kind: Option<Type>, size: bool, word: &str) -> Result<Value> {
    if kind == Some(Type::Volume) {
        return volume::inspected(engine, word);
    }
    if kind == Some(Type::Network) {
        return network::inspected(engine, word);
    }
    if kind != Some(Type::Image) {
        match all.find(word).and_then(|container| containers::inspect(engine, &container, size)) {
            Err(error) if error.kind() == Kind::NotFound && kind.is_none() => {}
            answer => return answer,
        }
    }
    let not_found = |answer: &Result<Value>| matches!(answer, Err(error) if error.kind() == Kind::NotFound);
    let answer = images::inspect(engine, word);
    if kind.is_some() || !not_found(&answer) {
        return answer;
    }
    // As docker goes on where it is not said what the word is.
    for inspected in [network::inspected, volume::inspected] {
        let answer = inspected(engine, word);
        if !not_found(&answer) {
            return answer;
        }
    }
    Err(containers::unknown(word))
}

/// Runs `image exists`.
pub(super) fn exists(args: &Exists) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let found = find::find_among(&engine.stores()?, &args.image)?.map(drop);
    Ok(if found.is_some() { Status::Success } else { Status::Failure })
}

/// Runs `container exists`.
pub(super) fn container_exists(args: &ContainerExists) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    match engine.find(&args.container) {
        Ok(_) => Ok(Status::Success),
        Err(error) if error.kind() == Kind::NotFound => Ok(Status::Failure),
        Err(error) => Err(error),
    }
}

/// Prints as docker does, four spaces deep.
pub(super) fn array(found: &mut [Value]) -> Result<String> {
    for described in &mut *found {
        // To templates a container without health checks has a health of nothing; the document leaves it out.
        if let Some(Value::Object(state)) = described.get_mut("State") {
            state.retain(|name, value| name != "Health" || !value.is_null());
        }
    }
    let mut bytes = Vec::new();
    found.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    ")))?;
    bytes.push(b'\n');
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
