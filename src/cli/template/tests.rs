//! What docker 28.2 prints for templates of docker's and podman's documentation, of Go's, and for what is typed wrongly.
//!
//! The expectations were made by docker itself: `docker inspect --format`, with [`document`] served as the daemon's answer.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A container, as docker describes it.
fn document() -> Value {
    let text = include_str!("container.json");
    serde_json::from_str(text).unwrap()
}

/// Templates, and what they print.
#[rustfmt::skip]
const PRINTED: &[(&str, &str)] = &[
    ("{{.Id}}", "e90b8b8f9e3d5a0c"),
    ("{{.State.Status}}", "running"),
    ("{{.State.Running}} {{.State.Pid}} {{.State.ExitCode}}", "true 4242 0"),
    ("{{.Name}}|{{.Config.Image}}", "/web|nginx:latest"),
    ("{{json .Config.Labels}}", r#"{"com.example.cpu":"4","com.example.zone":"<eu&1>","plain":"x"}"#),
    ("{{json .NetworkSettings.Ports}}", r#"{"443/tcp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]}"#),
    ("{{json .Config.Entrypoint}}", "null"),
    ("{{json .Name}}", r#""/web""#),
    ("{{.Config.Labels}}", "map[com.example.cpu:4 com.example.zone:<eu&1> plain:x]"),
    ("{{.Config.Env}}", "[PATH=/bin:/usr/bin A=b=c]"),
    ("{{.Config.Entrypoint}} {{.HostConfig.CapAdd}} {{.ExecIDs}}", "[] [] []"),
    ("{{.State.Health}}", "<nil>"),
    ("{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}", "1500000000 536870912"),
    (r#"{{index .Config.Labels "com.example.cpu"}}"#, "4"),
    (r#"{{index .Config.Labels "nope"}}|"#, "|"),
    ("{{.Config.Labels.plain}}|{{.Config.Labels.nope}}", "x|<no value>"),
    ("{{range .Mounts}}{{.Source}}:{{.Destination}} {{end}}", "/a:/b /v:/data "),
    ("{{range $i, $m := .Mounts}}{{if $i}}, {{end}}{{$i}}={{$m.Type}}{{end}}", "0=bind, 1=volume"),
    ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "172.17.0.2"),
    ("{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}", "02:42:ac:11:00:02"),
    ("{{range $net, $conf := .NetworkSettings.Networks}}{{$net}} {{$conf.Gateway}}/{{$conf.IPPrefixLen}}{{end}}", "bridge 172.17.0.1/16"),
    ("{{range $p, $conf := .NetworkSettings.Ports}}{{with $conf}}{{$p}} -> {{(index . 0).HostPort}}{{end}}{{end}}", "80/tcp -> 8080"),
    (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "8080"),
    (r#"{{with index .NetworkSettings.Ports "443/tcp"}}{{.}}{{else}}none{{end}}"#, "none"),
    (r#"{{with (index .NetworkSettings.Ports "9/udp")}}{{.}}{{else}}none{{end}}"#, "none"),
    (r#"{{index .NetworkSettings.Ports "9/udp"}}"#, "<no value>"),
    ("{{.NetworkSettings.Networks.bridge.IPAddress}}", "172.17.0.2"),
    (r#"{{with index .NetworkSettings.Networks "host"}}{{.IPAddress}}{{else}}no{{end}}"#, "no"),
    (r#"{{index .NetworkSettings.Networks "host"}}"#, "<nil>"),
    ("{{json .HostConfig.LogConfig.Config}} {{.HostConfig.LogConfig.Type}}", r#"{"max-size":"10m"} json-file"#),
    (r#"{{index .HostConfig.LogConfig.Config "nope"}}|"#, "|"),
    ("{{range .Config.Env}}{{println .}}{{end}}", "PATH=/bin:/usr/bin\nA=b=c\n"),
    (r#"{{range .Config.Env}}{{$p := split . "="}}{{index $p 0}} {{end}}"#, "PATH A "),
    (r#"{{join .Config.Cmd " "}}"#, "sh -c sleep 1"),
    (r#"{{join .Args ","}}|{{join .Config.Entrypoint ","}}"#, "-c,sleep 1|"),
    ("{{.Config.Cmd | json}}", r#"["sh","-c","sleep 1"]"#),
    (r#"{{.Name | upper}} {{.Driver | title}} {{lower "ABC"}}"#, "/WEB Overlay2 abc"),
    (r#"{{title "hello wide-world of_a b.c"}}"#, "Hello Wide-World Of_a B.C"),
    (r#"{{pad .Driver 2 1}}|{{pad "" 2 1}}|"#, "  overlay2 ||"),
    ("{{truncate .Id 4}} {{truncate .Id 99}}", "e90b e90b8b8f9e3d5a0c"),
    ("{{slice .Id 0 6}} {{slice .Id 12}} {{slice .Args 1}}", "e90b8b 5a0c [sleep 1]"),
    (r#"{{printf "%.6s" .Id}} {{.Id | printf "%.12s"}}"#, "e90b8b e90b8b8f9e3d"),
    (r#"{{printf "%-10s|%10s|%s" .Driver .Name "x"}}"#, "overlay2  |      /web|x"),
    (r#"{{printf "%05d %5d %-5d| %+d %x %X %#x %o %b %c %U %q" 42 42 42 42 255 255 255 8 5 97 97 97}}"#, "00042    42 42   | +42 ff FF 0xff 10 101 a U+0061 'a'"),
    (r#"{{printf "%d %d" .State.Pid .State.ExitCode}}"#, "4242 0"),
    (r#"{{printf "%f %.2f %8.3f %e %g %v" 1.5 1.5 1.5 1500.0 0.00001 1e21}}"#, "1.500000 1.50    1.500 1.500000e+03 1e-05 1e+21"),
    (r#"{{printf "%v %v %v %v %v" 100000.0 1e20 0.0001 123456789.5 -2.5}}"#, "100000 1e+20 0.0001 1.234567895e+08 -2.5"),
    (r#"{{printf "%t %v %s" true false .State.Running}}"#, "true false %!s(bool=true)"),
    (r#"{{printf "%q %q" .Name "a\"b\n\t\\ü"}}"#, r#""/web" "a\"b\n\t\\ü""#),
    (r#"{{printf "%d %s" .Name 5}}"#, "%!d(string=/web) %!s(int=5)"),
    (r#"{{printf "%s" }}"#, "%!s(MISSING)"),
    (r#"{{printf "%s %s" "a"}}"#, "a %!s(MISSING)"),
    (r#"{{printf "%s" "a" "b" 3}}"#, "a%!(EXTRA string=b, int=3)"),
    (r#"{{printf "%!" }} {{printf "100%%"}} {{printf "%z" 1}}"#, "%!!(MISSING) 100% %!z(int=1)"),
    (r#"{{printf "%v %d %s %q" .Args .Args .Args .Args}}"#, r#"[-c sleep 1] [%!d(string=-c) %!d(string=sleep 1)] [-c sleep 1] ["-c" "sleep 1"]"#),
    (r#"{{printf "%x %X % x" "hi" "hi" "hi"}}"#, "6869 6869 68 69"),
    (r#"{{printf "%*d|%-*d|%.*f" 5 1 5 2 1 2.25}}"#, "    1|2    |2.2"),
    (r#"{{printf "%T %T %T %T" 1 1.5 "x" true}}"#, "int float64 string bool"),
    (r#"{{printf "%6.2f|%-8.1f|%+.1e|%08.3f" 3.14159 2.0 12345.678 -3.14159}}"#, "  3.14|2.0     |+1.2e+04|-003.142"),
    (r#"{{printf "%v" .Config.Labels}}"#, "map[com.example.cpu:4 com.example.zone:<eu&1> plain:x]"),
    (r#"{{printf "%10v|%-6v|%06d|%+v" "ab" true -42 7}}"#, "        ab|true  |-00042|7"),
    (r#"{{printf "%.2T|%#x|%8t|%+s|%.2o|%U|%#U" 1 "hi" 5 4 "abc" 536870912 'z'}}"#, "in|0x6869|%!t(int=       5)|%!s(int=+4)|%!o(string=ab)|U+20000000|U+007A 'z'"),
    (r#"{{printf "%s %d %v" .Config.Entrypoint .Config.Entrypoint .HostConfig.CapAdd}}"#, "[] [] []"),
    (r#"{{print 1 2 "a" "b" 3 4.5 true nil}}"#, "1 2ab3 4.5 true <nil>"),
    (r#"{{println "a" 1 2}}"#, "a 1 2\n"),
    ("{{print}}{{println}}", "\n"),
    ("{{len .Name}} {{len .Config.Env}} {{len .Config.Labels}} {{len .ExecIDs}} {{len .Config.Entrypoint}}", "4 2 3 0 0"),
    (r#"{{eq .State.Status "running"}} {{eq .Driver "a" "b" "overlay2"}} {{ne .Driver "x"}}"#, "true true true"),
    (r#"{{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2 3}} {{lt "a" "b"}} {{eq 1.5 1.5}} {{lt 1.5 2.5}}"#, "true true false false true true true"),
    ("{{eq true true}} {{eq .State.Running true}} {{eq .State.Pid 4242}}", "true true true"),
    (r#"{{and 1 0 2}} {{and "a" "b"}} {{or 0 "" "z"}} {{or 0 ""}}| {{not 0}} {{not "x"}}"#, "0 b z | true false"),
    (r#"{{if eq .State.Status "running"}}up{{else}}down{{end}}"#, "up"),
    ("{{if .State.Paused}}p{{else if .State.Running}}r{{else}}x{{end}}", "r"),
    ("{{if and .State.Running (not .State.Paused)}}ok{{end}}", "ok"),
    ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
    ("{{if gt .State.Pid 0}}{{.State.Pid}}{{else}}0{{end}}", "4242"),
    ("{{with .State}}{{.Status}}-{{$.Name}}{{end}}", "running-/web"),
    (r#"{{with $s := .State}}{{$s.Pid}}{{end}}{{with ""}}x{{else}}empty{{end}}"#, "4242empty"),
    (r#"{{with ""}}x{{else with .Name}}{{.}}{{end}}"#, "/web"),
    ("{{$x := 1}}{{if true}}{{$x = 2}}{{$y := 5}}{{$y}}{{end}}{{$x}}", "52"),
    (r#"{{$x := "a"}}{{range .Args}}{{$x = .}}{{end}}{{$x}}"#, "sleep 1"),
    ("{{range .Args}}{{.}}{{else}}none{{end}}{{range .Config.Entrypoint}}{{.}}{{else}}none{{end}}", "-csleep 1none"),
    ("{{range 3}}{{.}}{{end}}{{range $i := 2}}<{{$i}}>{{end}}", "012<0><1>"),
    (r#"{{range .Args}}{{if eq . "-c"}}{{continue}}{{end}}{{.}}{{end}}"#, "sleep 1"),
    ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "com.example.cpu=4;com.example.zone=<eu&1>;plain=x;"),
    ("{{range $k, $_ := .Config.ExposedPorts}}{{$k}} {{end}}", "443/tcp 80/tcp "),
    ("  {{- .Name -}}  x {{- /* comment */ -}} y", "/webxy"),
    (r#"a {{/* comment */}}b {{- "c"}} {{"d" -}} e"#, "a bc de"),
    (r#"{{"quoted \"x\" \u00fc \x41"}} {{`raw \n`}} {{'a'}} {{0x1F}} {{0b11}} {{0o17}} {{1_000}} {{-5}} {{+5}} {{1.5e3}}"#, r#"quoted "x" ü A raw \n 97 31 3 15 1000 -5 5 1500"#),
    (r#"{{html "<a href='x'>&\"</a>"}} {{urlquery "a b&c/ü"}}"#, "&lt;a href=&#39;x&#39;&gt;&amp;&#34;&lt;/a&gt; a+b%26c%2F%C3%BC"),
    (r#"{{"output" | printf "%s" | printf "%q"}}"#, r#""output""#),
    (r#"{{printf "%q" (print "out" "put")}}"#, r#""output""#),
    (r#"{{with "output"}}{{printf "%q" .}}{{end}}"#, r#""output""#),
    (r#"{{with $x := "output" | printf "%q"}}{{$x}}{{end}}"#, r#""output""#),
    ("{{.Config.Labels | json | len}}", "63"),
    (r#"{{index .Args 1}} {{index "abc" 1}} {{index .Config.Labels "plain" | upper}}"#, "sleep 1 98 X"),
    ("{{(index .Mounts 1).Name}} {{(index .Mounts 0).RW}}", "data false"),
    (r#"{{ ( .State ).Pid }} {{ .State.Pid|printf "%d" }}"#, "4242 4242"),
    (r"\t{{.Name}}\n", r"\t/web\n"),
    (r#"{{.Name}} }} {{ "{{" }} } {"#, "/web }} {{ } {"),
    (r#"{{"a"|upper|lower|title}}"#, "A"),
    ("{{- 3}} {{3 -}} x", "3 3x"),
    ("{{-3}}", "-3"),
    ("{{.Name -}}\n\n x", "/webx"),
];

/// Templates that docker refuses as well, and the message, which is docker's but for its prefix.
#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    ("{{range $p, $conf := .NetworkSettings.Ports}} {{$p}} -> {{(index $conf 0).HostPort}} {{break}}{{end}}", r#"template: :1:59: executing "" at <index $conf 0>: error calling index: index of untyped nil"#),
    ("{{index}}", r#"template: :1:2: executing "" at <index>: wrong number of args for index: want at least 1 got 0"#),
    ("{{}}", "template: :1: missing value for command"),
    ("{{.Nope}}", r#"template: :1:2: executing "" at <.Nope>: map has no entry for key "Nope""#),
    ("{{.State.Nope}}", r#"template: :1:8: executing "" at <.State.Nope>: map has no entry for key "Nope""#),
    ("{{nope .Name}}", r#"template: :1: function "nope" not defined"#),
    ("{{if .Name}}x", "template: :1: unexpected EOF"),
    ("{{end}}", "template: :1: unexpected {{end}}"),
    ("{{else}}", "template: :1: unexpected {{else}}"),
    ("{{.Name", "template: :1: unclosed action"),
    ("{{/* x", "template: :1: unclosed comment"),
    ("{{$x}}", r#"template: :1: undefined variable "$x""#),
    ("{{index .Args 9}}", r#"template: :1:2: executing "" at <index .Args 9>: error calling index: index out of range: 9"#),
    (r#"{{index .Args "a"}}"#, r#"template: :1:2: executing "" at <index .Args "a">: error calling index: cannot index slice/array with type string"#),
    ("{{len 5}}", r#"template: :1:2: executing "" at <len 5>: error calling len: len of type int"#),
    ("{{len .State.Running}}", r#"template: :1:2: executing "" at <len .State.Running>: error calling len: len of type bool"#),
    ("{{upper}}", r#"template: :1:2: executing "" at <upper>: wrong number of args for upper: want 1 got 0"#),
    (r#"{{upper "a" "b"}}"#, r#"template: :1:2: executing "" at <upper>: wrong number of args for upper: want 1 got 2"#),
    (r#"{{eq 1 "a"}}"#, r#"template: :1:2: executing "" at <eq 1 "a">: error calling eq: incompatible types for comparison"#),
    ("{{eq 1}}", r#"template: :1:2: executing "" at <eq 1>: error calling eq: missing argument for comparison"#),
    ("{{lt true false}}", r#"template: :1:2: executing "" at <lt true false>: error calling lt: invalid type for comparison"#),
    ("{{lt .Args .Args}}", r#"template: :1:2: executing "" at <lt .Args .Args>: error calling lt: invalid type for comparison"#),
    ("{{range .Name}}{{end}}", r#"template: :1:8: executing "" at <.Name>: range can't iterate over /web"#),
    ("{{range true}}{{end}}", r#"template: :1:8: executing "" at <true>: range can't iterate over true"#),
    (r#"{{"a" "b"}}"#, r#"template: :1:2: executing "" at <"a">: can't give argument to non-function "a""#),
    (r#"{{.Name "b"}}"#, r#"template: :1:2: executing "" at <.Name>: Name is not a method but has arguments"#),
    ("{{.Name | .Id}}", r#"template: :1:10: executing "" at <.Id>: Id is not a method but has arguments"#),
    ("{{1 | 2}}", "template: :1: non executable command in pipeline stage 2"),
    ("{{nil}}", r#"template: :1:2: executing "" at <nil>: nil is not a command"#),
    ("{{break}}", "template: :1: {{break}} outside {{range}}"),
    ("{{(.Name}}", "template: :1: unclosed left paren"),
    ("{{.Name)}}", "template: :1: unexpected right paren"),
    ("{{if}}x{{end}}", "template: :1: missing value for if"),
    ("{{range $a, $b, $c := .Args}}{{end}}", "template: :1: too many declarations in range"),
    ("{{with $a, $b := .Args}}{{end}}", "template: :1: too many declarations in with"),
    ("{{..Name}}", r#"template: :1: unexpected . after term ".""#),
    ("{{$}} x{{end}}", "template: :1: unexpected {{end}}"),
    (r#"{{slice "abc" 2 1}}"#, r#"template: :1:2: executing "" at <slice "abc" 2 1>: error calling slice: invalid slice index: 2 > 1"#),
    (r#"{{slice "abc" 5}}"#, r#"template: :1:2: executing "" at <slice "abc" 5>: error calling slice: index out of range: 5"#),
    ("{{slice 5}}", r#"template: :1:2: executing "" at <slice 5>: error calling slice: can't slice item of type int"#),
    (r#"{{index nil "a"}}"#, r#"template: :1:2: executing "" at <index nil "a">: error calling index: index of untyped nil"#),
    ("{{not}}", r#"template: :1:2: executing "" at <not>: wrong number of args for not: want 1 got 0"#),
    ("{{printf}}", r#"template: :1:2: executing "" at <printf>: wrong number of args for printf: want at least 1 got 0"#),
    ("{{.name}}", r#"template: :1:2: executing "" at <.name>: map has no entry for key "name""#),
];

/// Templates that are refused by docker in other words, or not at all.
const REFUSED_OTHERWISE: &[&str] = &[
    "{{.Name.Nope}}",
    "{{.Args.Nope}}",
    "{{index .Name.X}}",
    "{{upper 5}}",
    r#"{{"a}}"#,
    "{{| .Name}}",
    "{{.Name.}}",
    "{{1.2.3}}",
    "{{0x}}",
    "{{09}}",
    r#"{{truncate "a" -1}}"#,
    r#"{{join .Name ","}}"#,
    r#"{{split .Args ","}}"#,
    "{{.State.Health.Status}}",
    "{{printf 5}}",
    r#"{{template "x"}}"#,
    "{{.Name | }}",
    "{{define \"x\"}}{{end}}",
    "{{block \"x\" .}}{{end}}",
    "{{call .Name}}",
    "{{js .Name}}",
];

fn render(template: &str, data: &Value) -> Result<String> {
    Template::parse(template)?.render(data)
}

#[test]
fn templates_print_what_docker_prints() {
    let document = document();
    let mut wrong = Vec::new();
    for (template, expected) in PRINTED {
        match render(template, &document) {
            Ok(text) if text == *expected => {}
            Ok(text) => wrong.push(format!("{template}\n  expected {expected:?}\n  got      {text:?}")),
            Err(error) => wrong.push(format!("{template}\n  expected {expected:?}\n  got      {error:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_docker_refuses_is_refused_in_its_words() {
    let document = document();
    let mut wrong = Vec::new();
    for (template, expected) in REFUSED {
        match render(template, &document) {
            Err(error) if error.report() == *expected => {}
            Err(error) => wrong.push(format!("{template}\n  expected {expected}\n  got      {}", error.report())),
            Ok(text) => wrong.push(format!("{template}\n  expected {expected}\n  got      {text:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_docker_words_otherwise_is_refused() {
    let document = document();
    for template in REFUSED_OTHERWISE {
        let answer = render(template, &document);
        assert!(answer.is_err(), "{template}: {answer:?}");
    }
}

#[test]
fn an_absent_field_names_those_there_are() {
    let error = render("{{.B}}", &json!({"A": 1, "C": {}})).unwrap_err();
    assert_eq!(error.report(), r#"template: :1:2: executing "" at <.B>: map has no entry for key "B""#);
    assert_eq!(error.hint(), Some("there are: A, C"));
    assert!(render("{{.C.D}}", &json!({"C": {}})).unwrap_err().hint().is_none());
}

#[test]
fn null_is_printed_as_the_type_that_the_name_tells() {
    let data =
        json!({"Labels": null, "Cmd": null, "Health": null, "Other": null, "List": [null, 1], "Map": {"a": null}});
    for (template, expected) in [
        ("{{.Labels}} {{.Cmd}} {{.Health}} {{.Other}}", "map[] [] <nil> <no value>"),
        ("{{.List}} {{.Map}}", "[<nil> 1] map[a:<nil>]"),
        ("{{.Labels.x}} {{index .Labels \"x\"}}|{{len .Labels}}", "<no value> |0"),
        ("{{json .Labels}} {{json .Labels.x}}", "null null"),
        ("{{range .Other}}x{{else}}none{{end}}{{if .Health}}x{{end}}", "none"),
    ] {
        assert_eq!(render(template, &data).unwrap(), expected, "{template}");
    }
}

#[test]
fn numbers_of_the_document_keep_their_kind() {
    let data = json!({"whole": 1_000_000_000_000_u64, "large": u64::MAX, "negative": -3, "part": 0.25, "e": 1e30});
    assert_eq!(
        render("{{.whole}} {{.large}} {{.negative}} {{.part}} {{.e}}", &data).unwrap(),
        "1000000000000 18446744073709551615 -3 0.25 1e+30"
    );
    assert_eq!(render("{{gt .whole 5}} {{lt .negative .large}} {{eq .part 0.25}}", &data).unwrap(), "true true true");
}

#[test]
fn a_header_is_made_by_the_template_of_the_rows() {
    let headers = json!({"ID": "CONTAINER ID", "Names": "NAMES"});
    for (template, expected) in [
        ("{{.ID}}\t{{.Names}}", "CONTAINER ID\tNAMES"),
        (
            "{{json .ID}} {{truncate .ID 3}} {{lower .Names}} {{.ID | upper}}",
            "CONTAINER ID CONTAINER ID NAMES CONTAINER ID",
        ),
        ("{{pad .Names 1 2}}|{{join .Names \",\"}}{{printf \"%.3s\" .ID}}", " NAMES  |NAMESCON"),
        ("{{.Label \"com.docker.swarm_node-id\"}}", "swarm node id"),
    ] {
        assert_eq!(Template::parse(template).unwrap().render_header(&headers).unwrap(), expected, "{template}");
    }
    let error = Template::parse("{{.Nope}}").unwrap().render_header(&headers).unwrap_err();
    assert_eq!(error.hint(), Some("there are: ID, Names"));
}

#[test]
fn the_root_has_methods_and_nothing_else_has() {
    let data = json!({"Name": "n", "Inner": {"Name": "i"}});
    let method = |name: &str, arguments: &[&str]| match (name, arguments) {
        ("Label", [label]) => Some(format!("<{label}>")),
        _ => None,
    };
    let render = |template: &str| Template::parse(template)?.render_with(&data, &method);
    assert_eq!(render("{{.Label \"a.b\"}} {{$.Label \"c\" | upper}} {{\"d\" | .Label}}").unwrap(), "<a.b> <C> <d>");
    for template in
        ["{{.Inner.Label \"a\"}}", "{{.Label 1}}", "{{.Label \"a\" \"b\"}}", "{{.Other \"a\"}}", "{{.Label}}"]
    {
        assert!(render(template).is_err(), "{template}");
    }
}

#[test]
fn depth_steps_and_text_are_bounded() {
    let data = json!({"list": vec![0; 1000]});
    let deep = "(".repeat(5000) + "1" + &")".repeat(5000);
    let blocks = "{{if 1}}".repeat(5000) + &"{{end}}".repeat(5000);
    let elses = "{{if 0}}{{else if 1}}".to_owned() + &"{{else if 1}}".repeat(5000) + "{{end}}";
    let ranges = "{{range $.list}}".repeat(4) + "x" + &"{{end}}".repeat(4);
    let doubling = "{{$x := \"x\"}}{{range 64}}{{$x = printf \"%s%s\" $x $x}}{{end}}";
    for template in [
        &format!("{{{{{deep}}}}}"),
        &blocks,
        &elses,
        &ranges,
        doubling,
        "{{range 9000000000000000000}}{{end}}",
        "{{pad \"x\" 9000000000000000000 0}}",
        "{{printf \"%1000000d%1000000d\" 1 2 | printf \"%s%[1]s\"}}{{range 100}}{{printf \"%1000000d\" 1}}{{end}}",
    ] {
        let error = render(template, &data).unwrap_err();
        assert!(error.report().contains("limit: "), "{}", error.report());
    }
}

#[test]
fn escapes_of_lists_are_turned_around() {
    assert_eq!(unescape(r"{{.A}}\t{{.B}}\n"), "{{.A}}\t{{.B}}\n");
}

/// Pieces of templates, put together at random.
const PIECES: &[&str] = &[
    "{{",
    "}}",
    "{{-",
    " -}}",
    "{{if ",
    "{{else}}",
    "{{else if ",
    "{{end}}",
    "{{range ",
    "{{with ",
    "{{range $i, $v := ",
    "$i",
    "$v",
    "$",
    ".",
    ".A",
    ".L",
    ".M",
    ".Labels",
    " ",
    "|",
    "(",
    ")",
    "1",
    "-1",
    "0.5",
    "\"a\"",
    "`b`",
    "'c'",
    "nil",
    "true",
    "index ",
    "len ",
    "slice ",
    "printf ",
    "\"%v %s %5d %q %x %*d\" ",
    "print ",
    "json ",
    "join ",
    "split ",
    "title ",
    "upper ",
    "truncate ",
    "pad ",
    "eq ",
    "lt ",
    "and ",
    "or ",
    "not ",
    "html ",
    "urlquery ",
    ":=",
    "=",
    ",",
    "/*",
    "*/",
    "x",
    "ü",
    "\n",
    "{{break}}",
    "{{continue}}",
    "9999999999",
    "\"\\u00",
    "{{.A}}",
    "{{index .L 0}}",
    "{{range .L}}{{.}}{{end}}",
];

proptest! {
    #[test]
    fn any_template_is_answered(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24)) {
        let data = json!({"A": "text", "L": [1, "b", null], "M": {"k": 1.5}, "Labels": {"a": "b"}});
        let _ = render(&pieces.concat(), &data);
    }

    #[test]
    fn any_text_is_answered(text in "[{}.$|a-z\"`() -]{0,40}|\\PC{0,40}") {
        let _ = render(&text, &json!({"a": 1}));
    }

    #[test]
    fn text_without_actions_is_itself(text in "[^{]{0,80}") {
        prop_assert_eq!(render(&text, &Value::Null).unwrap(), text);
    }

    #[test]
    fn json_is_json(text in "\\PC{0,20}", number in any::<i64>(), flag in any::<bool>()) {
        let data = json!({"text": text, "list": [number, flag, null], "map": {"k": text}});
        let printed = render("{{json .}}", &data).unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), data);
    }

    #[test]
    fn printf_takes_any_verb(format in "[%0-9.*+# a-zA-Z-]{0,12}", number in any::<i64>(), text in "\\PC{0,6}") {
        let data = json!({"f": format, "n": number, "t": text, "x": 2.5, "l": [1, "a"]});
        render("{{printf .f .n .t .x .l}}{{printf .f .x .l .n}}{{printf .f .t .t .t}}", &data).unwrap();
    }
}
