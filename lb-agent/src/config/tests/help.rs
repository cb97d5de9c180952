//! `--help` and the README tell all settings, and nothing else.

use clap::CommandFactory;

use crate::{
    cli::Cli,
    config::keys::{KEYS, Preset},
};

fn help() -> String {
    Cli::command().render_help().to_string()
}

#[test]
fn help_names_every_flag_with_its_default_under_its_heading() {
    let help = help();
    for key in KEYS {
        let heading = help
            .find(&format!("\n{}:\n", key.group))
            .unwrap_or_else(|| panic!("no heading {}", key.group));
        let flag = if key.switch {
            format!("--{}[=<{}>]", key.name, key.value)
        } else {
            format!("--{} <{}>", key.name, key.value)
        };
        let flag = help
            .find(&flag)
            .unwrap_or_else(|| panic!("no --{}", key.name));
        assert!(heading < flag, "--{} stands before its heading", key.name);
    }
    let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for key in KEYS {
        if let Preset::Text(default) | Preset::Words(default) = key.default {
            assert!(
                flat.contains(&format!("[default: {default}]")),
                "no default for --{}",
                key.name
            );
        }
    }
}

#[test]
fn headings_come_in_the_order_of_a_newcomers_questions() {
    let help = help();
    let headings = [
        "Interfaces",
        "Services",
        "DNS",
        "Addresses",
        "Safety",
        "Paths",
        "Tuning",
        "Logging",
        "Examples",
    ];
    let places: Vec<_> = headings
        .iter()
        .map(|heading| help.find(&format!("\n{heading}:\n")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn names_are_unique_and_written_in_lower_case_with_dashes() {
    for (at, key) in KEYS.iter().enumerate() {
        assert!(
            key.name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
            "{}",
            key.name
        );
        assert!(
            KEYS[..at].iter().all(|other| other.name != key.name),
            "{} twice",
            key.name
        );
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// One line of the README's table.
fn row(key: &super::super::keys::Key) -> String {
    let default = match key.default {
        Preset::Unset => "none".to_owned(),
        Preset::Text(text) => format!("`{text}`"),
        Preset::Words(words) => words.to_owned(),
    };
    let many = if key.many { " ..." } else { "" };
    format!(
        "| `--{} {}`{many} | {default} | {} |",
        key.name, key.value, key.help
    )
}

#[test]
fn the_readme_has_the_table_of_settings_as_it_is() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let wanted: Vec<_> = KEYS.iter().map(|key| row(key)).collect();
    // A flag with its value; other tables name flags without one.
    let is_row = |line: &str| {
        line.strip_prefix("| `--")
            .and_then(|rest| rest.split('`').next())
            .is_some_and(|flag| flag.contains(' '))
    };
    let found: Vec<_> = readme.lines().filter(|line| is_row(line)).collect();
    // Not `assert_eq`: it would bury the table that is to be copied.
    assert!(
        found == wanted,
        "the tables in README.md should read:\n{}\n",
        wanted.join("\n")
    );
}
