//! Reads the numbers of every surface, each by its proxy, its row and what the surface calls it.

use std::collections::BTreeMap;

use serde_json::Value;

/// The numbers of one proxy by row and name. What is not known is missing.
pub(super) type Cells = BTreeMap<(String, String), f64>;
/// By their names.
pub(super) type Proxies = BTreeMap<String, Cells>;

const BOTH: [&str; 2] = ["FRONTEND", "BACKEND"];

fn put(proxies: &mut Proxies, proxy: &str, row: &str, name: &str, number: f64) {
    let cells = proxies.entry(proxy.to_owned()).or_default();
    cells.insert((row.to_owned(), name.to_owned()), number);
}

/// HAProxy's -1 says that there was none.
fn known(name: &str, number: f64) -> bool {
    !(number < 0.0 && (name == "lastsess" || name == "last_session_seconds"))
}

pub(super) fn csv(text: &str) -> Proxies {
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let head = lines.next().and_then(|line| line.strip_prefix("# "));
    let fields: Vec<_> = head.expect("a head").split(',').collect();
    let mut proxies = Proxies::new();
    for line in lines {
        let values: Vec<_> = line.split(',').collect();
        for (name, value) in fields.iter().zip(&values).skip(2) {
            if let Ok(number) = value.parse::<f64>()
                && known(name, number)
            {
                put(&mut proxies, values[0], values[1], name, number);
            }
        }
    }
    proxies
}

/// HAProxy's JSON: a list for every row.
pub(super) fn lists(told: &Value) -> Proxies {
    let mut proxies = Proxies::new();
    for row in told.as_array().into_iter().flatten() {
        let cells = row.as_array().expect("a list");
        let value = |name: &str| {
            let cell = cells.iter().find(|cell| cell["field"]["name"] == name);
            cell.map_or(&Value::Null, |cell| &cell["value"]["value"])
        };
        let (proxy, name) = (value("pxname").as_str(), value("svname").as_str());
        let (proxy, row) = proxy.zip(name).expect("names");
        for cell in cells {
            let name = cell["field"]["name"].as_str().expect("a name");
            if let Some(number) = cell["value"]["value"].as_f64()
                && known(name, number)
            {
                put(&mut proxies, proxy, row, name, number);
            }
        }
    }
    proxies
}

/// HAProxy's typed form: a line for every value.
pub(super) fn typed(text: &str) -> Proxies {
    let mut rows = BTreeMap::<(&str, &str, &str), BTreeMap<&str, &str>>::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let parts: Vec<_> = line.splitn(4, ':').collect();
        let place: Vec<_> = parts[0].split('.').collect();
        let row = rows.entry((place[0], place[1], place[2])).or_default();
        row.insert(place[4], parts[3]);
    }
    let mut proxies = Proxies::new();
    for row in rows.values() {
        for (name, value) in row {
            let text = ["pxname", "svname"].contains(name);
            if let Ok(number) = value.parse::<f64>()
                && !text
                && known(name, number)
            {
                put(&mut proxies, row["pxname"], row["svname"], name, number);
            }
        }
    }
    proxies
}

/// Seconds from a moment to another, both in ms.
fn age(now: &Value, then: f64) -> f64 {
    (now.as_f64().expect("a moment") - then) / 1_000.0
}

/// `/v1/live`: names once, then lists.
pub(super) fn live(told: &Value) -> Proxies {
    let names: Vec<_> = told["cols"].as_array().expect("names").iter().collect();
    let place = names.iter().position(|name| **name == "svname");
    let place = place.expect("svname");
    let mut proxies = Proxies::new();
    for service in told["services"].as_array().into_iter().flatten() {
        let proxy = service["px"].as_str().expect("a name");
        let servers = service["S"].as_array().into_iter().flatten();
        for line in servers.chain([&service["F"], &service["B"]]) {
            let row = line[place].as_str().expect("a name");
            for (name, cell) in names.iter().zip(line.as_array().expect("a list")) {
                let name = name.as_str().expect("a name");
                if let Some(number) = cell.as_f64() {
                    let number = match name {
                        "since" | "last" => age(&told["now"], number),
                        _ => number,
                    };
                    put(&mut proxies, proxy, row, name, number);
                }
            }
        }
    }
    proxies
}

/// Every number below a value by its pointer, as far as it is not in `backends`; of a list their sum.
fn numbers(value: &Value, pointer: &str, each: &mut impl FnMut(&str, f64)) {
    match value {
        Value::Number(number) => each(pointer, number.as_f64().expect("a number")),
        Value::Array(list) => {
            let known: Vec<_> = list.iter().filter_map(Value::as_f64).collect();
            if !known.is_empty() {
                each(pointer, known.iter().sum());
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| *name != "backends") {
                numbers(value, &format!("{pointer}/{name}"), each);
            }
        }
        _ => {}
    }
}

/// `/v1/stats`.
pub(super) fn stats(told: &Value) -> Proxies {
    let mut proxies = Proxies::new();
    let mut take = |value: &Value, proxy: &str, rows: &[&str]| {
        numbers(value, "", &mut |pointer, number| {
            let number = match pointer {
                "/last_new" => age(&told["at"], number),
                pointer if pointer.contains("_us") => number / 1_000.0,
                _ => number,
            };
            for row in rows {
                put(&mut proxies, proxy, row, pointer, number);
            }
        });
    };
    for service in told["services"].as_array().into_iter().flatten() {
        let proxy = service["pxname"].as_str().expect("a name");
        take(service, proxy, &BOTH);
        for backend in service["backends"].as_array().into_iter().flatten() {
            take(
                backend,
                proxy,
                &[backend["svname"].as_str().expect("a name")],
            );
        }
    }
    proxies
}

/// What HAProxy's tools call a server at this address.
fn server(backend: &Value) -> String {
    let addr = backend["addr"].as_str().expect("an address");
    addr.replace(['.', ':'], "_")
}

/// The services of `/v1/status`, or of a subcommand; they are IP VIPs.
pub(super) fn services(list: &Value) -> Proxies {
    let mut proxies = Proxies::new();
    for service in list.as_array().into_iter().flatten() {
        let udp = if service["protocol"] == "udp" {
            "_udp"
        } else {
            ""
        };
        let addr = service["addrs"][0].as_str().expect("an address");
        let proxy = format!("{addr}_{}{udp}", service["port"]);
        numbers(service, "", &mut |pointer, number| {
            for row in BOTH {
                put(&mut proxies, &proxy, row, pointer, number);
            }
        });
        for backend in service["backends"].as_array().into_iter().flatten() {
            let row = server(backend);
            numbers(backend, "", &mut |pointer, number| {
                put(&mut proxies, &proxy, &row, pointer, number);
            });
        }
    }
    proxies
}

/// The list of `lb-agent backends`.
pub(super) fn backends(list: &Value) -> Proxies {
    let mut proxies = Proxies::new();
    for backend in list.as_array().into_iter().flatten() {
        let service = backend["service"].as_str().expect("a service");
        let (at, protocol) = service.split_once('/').expect("a protocol");
        let udp = if protocol == "udp" { "_udp" } else { "" };
        let (proxy, row) = (format!("{}{udp}", at.replace(':', "_")), server(backend));
        numbers(backend, "", &mut |pointer, number| {
            put(&mut proxies, &proxy, &row, pointer, number);
        });
    }
    proxies
}

/// Prometheus' text. Times are told in ms, as elsewhere; a label besides proxy and server stands behind the name.
pub(super) fn metrics(text: &str) -> Proxies {
    let mut proxies = Proxies::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        let (labels, value) = rest.split_once("\"} ").expect("labels");
        let labels: Vec<_> = labels
            .split("\",")
            .map(|label| label.split_once("=\"").expect("a label"))
            .collect();
        let label = |wanted: &str| {
            let mut found = labels.iter().filter(|(label, _)| *label == wanted);
            found.next().map(|(_, value)| *value)
        };
        let Some(proxy) = label("proxy") else {
            continue;
        };
        let levels = [
            ("haproxy_frontend_", "FRONTEND"),
            ("haproxy_backend_", "BACKEND"),
            ("haproxy_server_", label("server").unwrap_or_default()),
        ];
        let level = levels
            .iter()
            .find_map(|(start, row)| Some((name.strip_prefix(start)?, *row)));
        let (name, row) = level.unwrap_or((name, "FRONTEND"));
        let other = labels
            .iter()
            .find(|(label, _)| !["proxy", "server"].contains(label));
        let name = other.map_or_else(|| name.to_owned(), |(_, value)| format!("{name}:{value}"));
        let number: f64 = value.parse().expect("a number");
        let scale = if name.contains("_time_") {
            1_000.0
        } else {
            1.0
        };
        if known(&name, number) {
            put(&mut proxies, proxy, row, &name, number * scale);
        }
    }
    proxies
}

/// The page without its script.
pub(super) fn page(html: &str) -> Proxies {
    let mut proxies = Proxies::new();
    for section in html.split("<section class=\"px").skip(1) {
        let title = between(section, "<h2", "</h2>").expect("a title");
        let proxy = text(&format!("<h2{title}"));
        let heads = heads(section);
        for row in section.split("<tr class=\"").skip(1) {
            let (kind, cells) = row.split_once('"').expect("a class");
            let head = between(cells, "<th", "</th>").unwrap_or_default();
            let row = match kind {
                "fe" => "FRONTEND".to_owned(),
                "be" => "BACKEND".to_owned(),
                "sv" => text(&format!("<th{head}")).trim().to_owned(),
                _ => continue,
            };
            let cells: Vec<_> = cells.split("<td>").skip(1).collect();
            assert_eq!(cells.len(), heads.len(), "{proxy} {row}");
            for (name, cell) in heads.iter().zip(cells) {
                let cell = cell.split("</td>").next().unwrap_or_default();
                // The weight in force, and as configured.
                let both = cell.split_once('/').filter(|_| name == "Server Wght");
                let (cell, configured) = both.unwrap_or((cell, ""));
                for (name, cell) in [(name.clone(), cell), (format!("{name}/"), configured)] {
                    if let Some(number) = shown(cell) {
                        put(&mut proxies, &proxy, &row, &name, number);
                    }
                }
            }
        }
    }
    proxies
}

/// What the columns of a table are called, with their groups before them.
fn heads(section: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut columns = section.split("<th scope=\"col\">").skip(1);
    for group in section.split("scope=\"colgroup\" colspan=\"").skip(1) {
        let (span, rest) = group.split_once("\">").expect("a span");
        let group = rest.split('<').next().unwrap_or_default();
        for _ in 0..span.parse::<usize>().expect("a number") {
            let column = columns.next().expect("a column");
            names.push(format!(
                "{group} {}",
                column.split('<').next().unwrap_or_default()
            ));
        }
    }
    names
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

/// HTML without its tags.
fn text(html: &str) -> String {
    let parts = html.split('<').filter_map(|part| part.split_once('>'));
    parts.map(|(_, text)| text).collect()
}

/// A number as the page shows it: `7`, `Y`, `50%`, `5m3s`, `5m3s UP`.
fn shown(cell: &str) -> Option<f64> {
    let word = cell.split(' ').next().unwrap_or_default();
    match word {
        "Y" => return Some(1.0),
        "-" => return Some(0.0),
        _ => {}
    }
    let word = word.strip_suffix('%').unwrap_or(word);
    if let Ok(number) = word.parse() {
        return Some(number);
    }
    let mut seconds = 0.0;
    let mut rest = word;
    while let Some(end) = rest.find(|c: char| !c.is_ascii_digit()) {
        let number: f64 = rest[..end].parse().ok()?;
        let unit = match &rest[end..=end] {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[end + 1..];
    }
    (rest.is_empty() && !word.is_empty()).then_some(seconds)
}
