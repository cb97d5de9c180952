//! The published JSON schema, and the proof that it says what the reader does.

/// The JSON schema of a services file; `lb-agent check --schema` prints it.
pub const JSON_SCHEMA: &str = include_str!("../../../../../docs/services.schema.json");

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use jsonschema::Validator;
    use serde_json::Value;

    use super::{
        super::{File, IdleKeys, LongEntry, Service, check::CheckMap, read_all},
        JSON_SCHEMA,
    };

    fn schema() -> Value {
        serde_json::from_str(JSON_SCHEMA).expect("JSON")
    }

    fn validator() -> Validator {
        let options = jsonschema::options().should_validate_formats(true);
        options.build(&schema()).expect("a JSON schema")
    }

    /// What the reader says, and the schema.
    fn verdicts(validator: &Validator, text: &str) -> (Vec<String>, Vec<String>) {
        let value: Value = serde_saphyr::from_str(text).expect("YAML");
        let errors = validator.iter_errors(&value);
        let wrong = read_all(text, Path::new("s.yaml")).wrong;
        (wrong, errors.map(|e| e.to_string()).collect())
    }

    #[test]
    fn every_key_of_the_reader_is_in_the_schema_and_no_other() {
        let schema = schema();
        let defs = &schema["$defs"];
        let service = &defs["service"];
        for (keys, object) in [
            (File::KEYS, &schema),
            (Service::KEYS, service),
            (IdleKeys::KEYS, &service["properties"]["idle"]),
            (LongEntry::KEYS, &defs["backend"]["anyOf"][1]),
            (CheckMap::KEYS, &defs["check"]),
        ] {
            let read: BTreeSet<String> = keys.iter().map(|key| key.replace('_', "-")).collect();
            let published = object["properties"].as_object().expect("properties").keys();
            assert_eq!(
                read,
                published.cloned().collect(),
                "left: the reader, right: docs/services.schema.json"
            );
            assert_eq!(object["additionalProperties"], false);
        }
    }

    #[test]
    fn what_the_reader_takes_the_schema_takes() {
        let validator = validator();
        for text in [
            "services: []",
            "services:",
            "{}",
            "services: [{name: /a, port: 80}]",
            "services: [{name: 7, port: '080', framework: marathon, backends: []}]",
            "services: [{address: 10.1.2.3, port: 65535, protocol: udp}]",
            "services: [{address: 'fd01:c::1', port: 1, protocol: [tcp, udp]}]",
            "services: [{name: /a, port: 1, backends: ['10.0.0.1:1', '[fd00::1]:65535']}]",
            "services: [{name: /a, port: 1, backends: [{address: '10.0.0.1:1', weight: 0, backup: true, \
             zone: a, name: 7, max-flows: 5}, {address: '10.0.0.2:1', weight: '256', backup: 'false'}]}]",
            "services: [{name: /a, port: 1, mode: dsr-l2, balance: source, affinity: 30d, max-flows: 1, \
             rate: '4294967295', source-rate: 20, idle: {tcp: 10s, udp: 2s, udp-two-way: 1h30m}, \
             allow: [10.0.0.0/8, 'fd00::1'], deny: [], denied: refuse, external: 10000}]",
            "services: [{name: /a, port: 1, external: [10000, '10001'], deny: [10.9.0.7]}]",
            "services: [{name: /a, port: 1, group: edge}, {name: /b, port: 1, group: [edge, 7]}]",
            "services: [{name: /a, port: 1, check: tcp, fail-open: yes, slow-start: 30s}]",
            "services: [{name: /a, port: 1, check: 'http:/h interval=1s fall=2', fail-open: 'no'}]",
            "services: [{name: /a, port: 1, check: {http: /h, interval: 500ms, fast: 100ms, timeout: 1s, rise: 2, fall: '3', \
             grace: 10s, port: 81, host: www, method: HEAD, expect: '200-299,404'}}]",
            "services: [{name: /a, port: 1, check: {interval: 1m, port: 81}}]",
            include_str!("../default.yaml"),
        ] {
            let (reader, schema) = verdicts(&validator, text);
            assert_eq!((reader, schema), (vec![], vec![]), "{text}");
        }
    }

    #[test]
    fn what_the_schema_refuses_the_reader_refuses() {
        let validator = validator();
        let services = [
            "7",
            "{port: 1}",
            "{name: /a}",
            "{name: '', port: 1}",
            "{name: /a, prot: 1}",
            "{name: /a, port: 0}",
            "{name: /a, port: 65536}",
            "{name: /a, port: '65536'}",
            "{name: /a, port: http}",
            "{name: /a, port: [1]}",
            "{name: /a, address: 10.0.0.1, port: 1}",
            "{address: 10.0.0.256, port: 1}",
            "{address: 10.0.0.1, framework: x, port: 1}",
            "{name: /a, port: 1, protocol: sctp}",
            "{name: /a, port: 1, protocol: []}",
            "{name: /a, port: 1, mode: dsr}",
            "{name: /a, port: 1, balance: random}",
            "{name: /a, port: 1, affinity: 60}",
            "{name: /a, port: 1, affinity: 1m1h}",
            "{name: /a, port: 1, affinity: ''}",
            "{name: /a, port: 1, max-flows: 0}",
            "{name: /a, port: 1, rate: -1}",
            "{name: /a, port: 1, source-rate: lots}",
            "{name: /a, port: 1, idle: 5m}",
            "{name: /a, port: 1, idle: {udb: 5m}}",
            "{name: /a, port: 1, idle: {tcp: never}}",
            "{name: /a, port: 1, allow: []}",
            "{name: /a, port: 1, allow: 10.0.0.0/8}",
            "{name: /a, port: 1, deny: [host]}",
            "{name: /a, port: 1, external: []}",
            "{name: /a, port: 1, external: 0}",
            "{name: /a, port: 1, external: [http]}",
            "{name: /a, port: 1, group: []}",
            "{name: /a, port: 1, group: 'a b'}",
            "{name: /a, port: 1, group: [edge, '']}",
            "{name: /a, port: 1, check: ping}",
            "{name: /a, port: 1, check: [tcp]}",
            "{name: /a, port: 1, check: {http: h}}",
            "{name: /a, port: 1, check: {host: www}}",
            "{name: /a, port: 1, check: {color: red}}",
            "{name: /a, port: 1, check: {rise: 0}}",
            "{name: /a, port: 1, check: {interval: 5}}",
            "{name: /a, port: 1, fail-open: maybe}",
            "{name: /a, port: 1, denied: ignore}",
            "{name: /a, port: 1, slow-start: 30}",
            "{name: /a, port: 1, backends: 10.0.0.1}",
            "{name: /a, port: 1, backends: [10.0.0.1]}",
            "{name: /a, port: 1, backends: ['host:80']}",
            "{name: /a, port: 1, backends: ['10.0.0.1:0']}",
            "{name: /a, port: 1, backends: [[7]]}",
            "{name: /a, port: 1, backends: [{weight: 1}]}",
            "{name: /a, port: 1, backends: [{address: '10.0.0.1:1', weight: 257}]}",
            "{name: /a, port: 1, backends: [{address: '10.0.0.1:1', weight: '300'}]}",
            "{name: /a, port: 1, backends: [{address: '10.0.0.1:1', backup: perhaps}]}",
            "{name: /a, port: 1, backends: [{address: '10.0.0.1:1', zone: 'a b'}]}",
            "{name: /a, port: 1, backends: [{address: '10.0.0.1:1', wait: 1}]}",
        ];
        let files = services.map(|service| format!("services: [{service}]"));
        let others = ["services: 7", "foo: 1", "[]"].map(str::to_owned);
        for text in files.into_iter().chain(others) {
            let (reader, schema) = verdicts(&validator, &text);
            assert!(!reader.is_empty(), "the reader takes {text}");
            assert!(!schema.is_empty(), "the schema takes {text}: {reader:?}");
        }
    }
}
