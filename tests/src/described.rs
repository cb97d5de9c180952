//! What an OpenAPI document says of the agent's answers, and whether an answer is so.
//!
//! It knows the words of JSON Schema that ours uses, no others, and is stricter in one thing: an object has no member
//! that is not described.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::net::IpAddr;

use serde_json::{Map, Value};

/// An OpenAPI document.
#[derive(Debug)]
pub struct Description(Value);

/// What stands in a place that is described otherwise.
type Faults = Vec<String>;

// === impl Description ===

impl Description {
    /// Takes it as the agent gives it.
    pub fn new(document: Value) -> Self {
        Self(document)
    }

    /// Path and method of every operation.
    pub fn operations(&self) -> impl Iterator<Item = (&str, &str)> {
        let paths = self.0["paths"].as_object().expect("paths");
        paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods
                .keys()
                .map(move |method| (path.as_str(), method.as_str()))
        })
    }

    /// The media type of an operation's good answer, and its schema.
    pub fn answer(&self, path: &str, method: &str) -> (&str, &Value) {
        let content = &self.0["paths"][path][method]["responses"]["200"]["content"];
        let content = content.as_object().expect("content");
        let (media, described) = content.iter().next().expect("a media type");
        (media, &described["schema"])
    }

    /// What is wrong with a value, each with its place.
    pub fn faults(&self, schema: &Value, value: &Value) -> Faults {
        let mut faults = Vec::new();
        self.check(schema, value, "", true, &mut faults);
        faults
    }

    /// `whole`: nothing else describes the value, too.
    fn check(&self, schema: &Value, value: &Value, at: &str, whole: bool, faults: &mut Faults) {
        let rules = schema.as_object().expect("a schema");
        for (word, rule) in rules {
            let holds = match word.as_str() {
                "description" | "default" => true,
                "$ref" => {
                    self.check(self.named(rule), value, at, whole, faults);
                    true
                }
                "type" => is_of(rule, value),
                "const" => value == rule,
                "format" => rule != "ip" || value.as_str().is_none_or(is_address),
                "minimum" => value.as_f64() >= rule.as_f64() || !value.is_number(),
                "maximum" => value.as_f64() <= rule.as_f64() || !value.is_number(),
                "anyOf" => self.fitting(rule, value) > 0,
                "oneOf" => self.fitting(rule, value) == 1,
                "allOf" => {
                    for part in list(rule) {
                        self.check(part, value, at, false, faults);
                    }
                    true
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}/{index}"), true, faults);
                    }
                    true
                }
                "required" => list(rule).iter().all(|name| {
                    let name = name.as_str().expect("a name");
                    !value.is_object() || value.get(name).is_some()
                }),
                "properties" | "additionalProperties" => true,
                other => panic!("a word of JSON Schema that is not known here: {other}"),
            };
            if !holds {
                faults.push(format!("{at}: {word} {rule}: {value}"));
            }
        }
        if let Some(members) = value.as_object() {
            self.members(rules, members, at, whole, faults);
        }
    }

    fn members(
        &self,
        rules: &Map<String, Value>,
        members: &Map<String, Value>,
        at: &str,
        whole: bool,
        faults: &mut Faults,
    ) {
        let known = rules.get("properties");
        let others = rules
            .get("additionalProperties")
            .filter(|one| one.is_object());
        for (name, member) in members {
            let at = format!("{at}/{name}");
            match (known.and_then(|known| known.get(name)), others) {
                (Some(schema), _) | (None, Some(schema)) => {
                    self.check(schema, member, &at, true, faults);
                }
                (None, None) if known.is_some() && whole => {
                    faults.push(format!("{at}: not described"))
                }
                (None, None) => {}
            }
        }
    }

    /// How many of these schemas a value fits.
    fn fitting(&self, schemas: &Value, value: &Value) -> usize {
        let fits = |schema: &&Value| self.faults(schema, value).is_empty();
        list(schemas).iter().filter(fits).count()
    }

    fn named(&self, reference: &Value) -> &Value {
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
        let found = pointer.and_then(|pointer| self.0.pointer(pointer));
        found.unwrap_or_else(|| panic!("there is no schema {reference}"))
    }
}

fn list(rule: &Value) -> &[Value] {
    rule.as_array().expect("a list")
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Whether a value is of this type, or of one of these.
fn is_of(rule: &Value, value: &Value) -> bool {
    match rule.as_str() {
        None => list(rule).iter().any(|rule| is_of(rule, value)),
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => panic!("a type that is not known here: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_as_described_is_found() {
        let described = Description::new(json!({"components": {"schemas": {
            "State": {"oneOf": [{"const": "up", "type": "string"}, {"const": "down", "type": "string"}]},
            "Backend": {
                "type": "object", "required": ["state"],
                "properties": {
                    "state": {"$ref": "#/components/schemas/State"},
                    "weight": {"type": ["integer", "null"], "minimum": 0, "maximum": 256},
                    "addr": {"type": "string", "format": "ip"},
                },
            },
        }}}));
        let backend = json!({"$ref": "#/components/schemas/Backend"});
        let all = json!({"allOf": [
            {"type": "object", "properties": {"list": {"type": "array", "items": backend}}},
            {"type": "object", "properties": {"names": {"type": "object", "additionalProperties": {"type": "string"}}}},
        ]});
        let faults = |schema: &Value, value: Value| described.faults(schema, &value);
        for well in [
            json!({"state": "up"}),
            json!({"state": "down", "weight": null, "addr": "fd00::1"}),
            json!({"state": "up", "weight": 256}),
        ] {
            assert_eq!(faults(&backend, well.clone()), [""; 0]);
            let all_of_it = json!({"list": [well], "names": {"a": "b"}, "more": 1});
            assert_eq!(faults(&all, all_of_it), [""; 0]);
        }
        for wrong in [
            json!([]),
            json!({}),
            json!({"state": "ill"}),
            json!({"state": "up", "weight": -1}),
            json!({"state": "up", "weight": 257}),
            json!({"state": "up", "weight": 1.5}),
            json!({"state": "up", "addr": "x"}),
            json!({"state": "up", "more": 1}),
        ] {
            assert_eq!(faults(&backend, wrong.clone()).len(), 1, "{wrong}");
            assert_eq!(faults(&all, json!({"list": [wrong]})).len(), 1);
        }
        assert_eq!(faults(&all, json!({"names": {"a": 1}})).len(), 1);
    }
}
