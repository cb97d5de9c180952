//! `docs/openapi.json` says which pages there are and what they answer: as the code has it, and as a server answers.

use std::collections::BTreeSet;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::pages::{Body, PAGES, Page};
use crate::admin::web::{OPENAPI, tests::Site};

/// With a value, the document is written anew.
const WRITE: &str = "LB_AGENT_WRITE_OPENAPI";
/// All that adds pages to the router.
const ROUTERS: [&str; 3] = [
    include_str!("../server.rs"),
    include_str!("../page/routes.rs"),
    include_str!("../web/pages.rs"),
];

fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let at_its_place = |settings: &mut SchemaSettings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    };
    settings.with(at_its_place).into_generator()
}

pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// The document as the code has it.
fn document() -> Value {
    let mut generator = generator();
    let mut paths = Map::new();
    for page in &PAGES {
        let method = if page.is_order { "post" } else { "get" };
        let described = json!({ method: operation(page, &mut generator) });
        assert!(paths.insert(page.path.to_owned(), described).is_none());
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "lb-agent",
            "version": "1",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            "description": "What an lb-agent answers on its admin socket (no secret needed: its mode decides) and on \
                            --admin-listen. Refusals are one line of text. Statistics in HAProxy's forms (`/;csv`, \
                            `/haproxy?stats;json`) and the page for people are described in docs/stats.md.",
        },
        "servers": [{"url": "http://127.0.0.1:9090", "description": "the default of --admin-listen"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "--admin-token-file"},
                "user": {"type": "http", "scheme": "basic", "description": "--admin-users-file"},
            },
        },
    })
}

fn operation(page: &Page, generator: &mut SchemaGenerator) -> Value {
    let (media, shape) = match page.body {
        Body::Json(schema) => ("application/json", schema(generator)),
        Body::Lines(schema) => ("application/x-ndjson", schema(generator)),
        Body::Other(media) => (media, json!({"type": "string"})),
    };
    let mut answers = Map::new();
    let well = json!({"description": "as asked", "content": {media: {"schema": shape}}});
    answers.insert("200".to_owned(), well);
    let secret: &[(u16, &str)] = match page.secret {
        true => &[(
            401,
            "over TCP, without a token, user name or password that is right",
        )],
        false => &[],
    };
    for (code, why) in page.refusals.iter().chain(secret) {
        answers.insert(code.to_string(), json!({ "description": why }));
    }
    let parameters: Vec<_> = page
        .query
        .iter()
        .map(|(name, what)| parameter(name, what))
        .collect();
    let mut operation = json!({"summary": page.summary, "responses": answers});
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if page.secret {
        operation["security"] = json!([{"token": []}, {"user": []}]);
    }
    operation
}

fn parameter(name: &str, what: &str) -> Value {
    let place = if name.starts_with('{') {
        "path"
    } else {
        "query"
    };
    json!({
        "name": name.trim_matches(['{', '}']), "in": place, "description": what,
        "required": place == "path", "schema": {"type": "string"},
    })
}

#[test]
fn the_published_description_is_that_of_the_code() {
    let document = document();
    if std::env::var_os(WRITE).is_some() {
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        let at = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        return std::fs::write(at, text).unwrap();
    }
    let published: Value = serde_json::from_str(OPENAPI).unwrap();
    assert!(
        published == document,
        "docs/openapi.json is not what the code says; {WRITE}=1 in this test's environment writes it anew"
    );
}

#[test]
fn every_page_is_described() {
    let routes = ROUTERS
        .iter()
        .flat_map(|source| source.split(".route(").skip(1));
    let routes: BTreeSet<_> = routes.filter_map(|rest| rest.split('"').nth(1)).collect();
    let described: BTreeSet<_> = PAGES.iter().map(|page| page.path).collect();
    assert_eq!(described, routes);
}

#[test]
fn a_server_answers_as_it_is_described() {
    const TOKEN: &str = "Authorization: Bearer s3cret\r\n";
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let site = Site::open(|_| {});
    for page in &PAGES {
        let method = if page.is_order { "post" } else { "get" };
        let path = page.path.replace("{name}", "page.css");
        let target = format!("{}{}", path.replace("{registry}", "l4lb"), page.asked);
        let (head, body) = match page.is_order {
            true => site.post(&target, TOKEN, ""),
            false => site.get(&target, TOKEN),
        };
        assert!(head.starts_with("HTTP/1.0 200"), "{target}: {head}\n{body}");
        let content = &document["paths"][page.path][method]["responses"]["200"]["content"];
        let (media, described) = content.as_object().unwrap().iter().next().unwrap();
        let kind = head
            .lines()
            .find_map(|line| line.strip_prefix("content-type: "));
        assert!(
            kind.is_some_and(|kind| kind.starts_with(media.trim_end_matches('*'))),
            "{target}: {head}"
        );
        let whole = json!({"components": document["components"], "allOf": [described["schema"]]});
        let validator = jsonschema::validator_for(&whole).unwrap();
        let answers: Vec<&str> = match page.body {
            Body::Json(_) => vec![&body],
            Body::Lines(_) => body.lines().filter(|line| !line.is_empty()).collect(),
            Body::Other(_) => continue,
        };
        assert!(!answers.is_empty(), "{target}");
        for answer in answers {
            let answer: Value = serde_json::from_str(answer).unwrap();
            let wrong: Vec<_> = validator
                .iter_errors(&answer)
                .map(|error| format!("{} {error}", error.instance_path()))
                .collect();
            assert_eq!(wrong, [""; 0], "{target}: {answer:#}");
        }
    }
}
