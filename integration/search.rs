//! `search`: docker's search, the catalogue of other registries, tags, against a registry that answers by script.

use super::support::registry::{Reply, Scripted};
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    [test!(a_registry_is_searched), test!(a_catalogue_is_searched), test!(tags_are_listed_page_by_page)]
        .into_iter()
        .map(|test| test.needs(Need::Husk))
        .collect()
}

fn json(text: &str) -> Reply {
    Reply::ok("application/json", text)
}

fn a_registry_is_searched(scene: &Scene) {
    let registry = Scripted::start(|request| {
        if !request.path.starts_with("/v1/search?") {
            return json("{}");
        }
        json(
            r#"{"results": [
                {"name": "app", "description": "the\nfirst\u001b[31m", "star_count": 7, "is_official": true},
                {"name": "team/app", "description": null, "star_count": 3, "is_automated": false},
                {"name": "long", "description": "0123456789 0123456789 0123456789 0123456789 0123456789"}]}"#,
        )
    });
    let host = registry.host();
    let search = |words: &[&str]| {
        let mut command = scene.husk();
        command.args(["search", &format!("{host}/a p")]).args(words).run()
    };
    let table = search(&[]).success().stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("NAME ") && lines[0].ends_with("STARS     OFFICIAL"), "{table}");
    assert!(lines[1].starts_with(&format!("{host}/app ")) && lines[1].ends_with("7         [OK]"), "{table}");
    assert!(!table.contains('\u{1b}') && lines[3].contains('…') && lines.len() == 4, "{table}");
    let asked = registry.wait_for(|request| request.path.contains("search"));
    assert_eq!(asked.path, "/v1/search?q=a%20p&n=25");
    let names = |words: &[&str]| search(&[words, &["--format", "{{.Name}}"]].concat()).success().stdout;
    assert_eq!(names(&["--filter", "is-official=true"]), format!("{host}/app\n"));
    assert_eq!(names(&["--filter", "stars=3"]), format!("{host}/app\n{host}/team/app\n"));
    assert_eq!(names(&["--limit", "1"]), format!("{host}/app\n"));
    let whole = search(&["--no-trunc", "--format", "{{.Description}}"]).success().stdout;
    assert!(!whole.contains('…'), "{whole}");
    search(&["--filter", "stars=x"]).exits_with(125).says("not a number");
}

fn a_catalogue_is_searched(scene: &Scene) {
    let registry = Scripted::start(|request| match &request.path[..] {
        "/v2/_catalog?n=1000" => json(r#"{"repositories": ["one/app", "other"]}"#)
            .header("link", "</v2/_catalog?n=1000&last=other>; rel=\"next\""),
        "/v2/_catalog?n=1000&last=other" => json(r#"{"repositories": ["two/app"]}"#),
        "/v2/" => json("{}"),
        _ => Reply::new(404),
    });
    let host = registry.host();
    let search = |words: &[&str]| {
        let mut command = scene.husk();
        command.args(["search", "--format", "{{.Name}}", &format!("{host}/app")]).args(words).run()
    };
    assert_eq!(search(&[]).success().stdout, format!("{host}/one/app\n{host}/two/app\n"));
    assert_eq!(search(&["--limit", "1"]).success().stdout, format!("{host}/one/app\n"));
}

fn tags_are_listed_page_by_page(scene: &Scene) {
    let registry = Scripted::start(|request| match &request.path[..] {
        "/v2/app/tags/list?n=1000" => {
            json(r#"{"name": "app", "tags": ["1", "2"]}"#).header("link", "</v2/app/tags/list?last=2>; rel=\"next\"")
        }
        "/v2/app/tags/list?last=2" => json(r#"{"name": "app", "tags": ["3"]}"#),
        // Leads on for ever, and away.
        "/v2/endless/tags/list?n=1000" => {
            json(r#"{"tags": []}"#).header("link", "</v2/endless/tags/list?n=1000>; rel=\"next\"")
        }
        "/v2/away/tags/list?n=1000" => {
            json(r#"{"tags": ["1"]}"#).header("link", "<http://127.0.0.1:1/v2/away/tags/list>; rel=\"next\"")
        }
        "/v2/none/tags/list?n=1000" => json(r#"{"name": "none", "tags": null}"#),
        "/v2/" => json("{}"),
        _ => Reply::new(404),
    });
    let host = registry.host();
    let tags = |name: &str, words: &[&str]| {
        let mut command = scene.husk();
        command.args(["search", "--list-tags", "--format", "{{.Tag}}", &format!("{host}/{name}")]).args(words).run()
    };
    assert_eq!(tags("app", &[]).success().stdout, "1\n2\n3\n");
    assert_eq!(tags("app", &["--limit", "2"]).success().stdout, "1\n2\n");
    assert_eq!(tags("none", &[]).success().stdout, "");
    assert_eq!(tags("away", &[]).success().stdout, "1\n");
    tags("endless", &[]).exits_with(125).says("limit");
    tags("missing", &[]).exits_with(125).says("404");
    let table = scene.husk().args(["search", "--list-tags", &format!("{host}/app")]).run().success().stdout;
    assert!(table.starts_with("NAME ") && table.contains(&format!("{host}/app   3")), "{table}");
}
