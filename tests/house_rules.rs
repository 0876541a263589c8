//! What the project promises of itself: the example file and the README agree with the program.

use noray::config::{Config, Effective, KEYS, Sources};
use noray::label::Label;

const EXAMPLE: &str = include_str!("../noray.conf.example");
const README: &str = include_str!("../README.md");
const NAME_SERVER_FILES: [&str; 2] =
    [include_str!("../dist/gdnsd/config"), include_str!("../dist/gdnsd/zones/noray.example")];

#[test]
fn the_example_file_uncommented_is_the_defaults() {
    let uncommented: Vec<&str> = EXAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|l| l.starts_with("NORAY_")))
        .collect();
    let names: Vec<&str> = uncommented.iter().map(|line| line.split_once('=').unwrap().0).collect();
    assert_eq!(
        names,
        KEYS.iter().map(|key| key.name).collect::<Vec<_>>(),
        "every key, once, in order"
    );
    for (line, key) in uncommented.iter().zip(KEYS) {
        assert_eq!(*line, format!("{}={}", key.name, key.default));
    }
    assert_eq!(read(&uncommented.join("\n")), Config::default());
}

#[test]
fn the_example_file_as_it_stands_sets_nothing() {
    assert_eq!(read(EXAMPLE), Config::default());
}

fn read(text: &str) -> Config {
    let file = Some(("noray.conf".to_owned(), text.as_bytes().to_vec()));
    Effective::read(&Sources { file, ..Sources::default() }).expect("no mistakes").config
}

#[test]
fn the_readmes_table_has_every_key_with_its_default_and_meaning() {
    let rows: Vec<&str> = README.lines().filter(|line| line.starts_with("| `NORAY_")).collect();
    assert_eq!(rows.len(), KEYS.len());
    for (row, key) in rows.iter().zip(KEYS) {
        let default = match key.default {
            "" => "empty".to_owned(),
            characters if characters.len() == 64 => "`A-Za-z0-9_-`".to_owned(),
            default => format!("`{default}`"),
        };
        assert_eq!(*row, format!("| `{}` | {default} | {} |", key.name, key.help));
    }
}

#[test]
fn the_readme_lists_every_drop_reason_and_error_code() {
    for reason in noray::core::relay::DropReason::ALL {
        assert!(README.contains(&format!("`{}`", reason.label())), "{reason:?}");
    }
    for code in noray::core::protocol::ErrorCode::ALL {
        assert!(README.contains(&format!("`{}`", code.label())), "{code:?}");
    }
}

#[test]
fn the_readme_shows_the_name_servers_files() {
    for file in NAME_SERVER_FILES {
        let shown: String = file.lines().map(|line| format!("    {line}\n")).collect();
        assert!(README.contains(&shown.replace("    \n", "\n")), "{file}");
    }
}

#[test]
fn the_readme_lists_every_metric() {
    let text = noray::operation::metrics::Metrics::default().text();
    let heads = text.lines().filter_map(|line| line.strip_prefix("# TYPE noray_"));
    for name in heads.map(|head| head.split(' ').next().unwrap()) {
        assert!(README.contains(&format!("`noray_{name}`")), "noray_{name}");
    }
}

#[test]
fn the_readme_lists_every_bound_with_what_counts_it() {
    let (_, bounds) = README.split_once("### Bounds").expect("the section");
    let (bounds, _) = bounds.split_once("###").expect("the next section");
    let labels = noray::limits::bounds::Bound::ALL.iter().map(|bound| bound.label());
    let ends =
        noray::limits::connection_policy::DisconnectReason::ALL.iter().map(|reason| reason.label());
    for label in labels.chain(ends) {
        assert!(bounds.contains(&format!("`{label}`")), "{label}");
    }
    for row in bounds.lines().filter(|line| line.starts_with("| ")) {
        assert_eq!(row.matches('|').count(), 6, "{row}");
    }
}

/// In `Cargo.toml` the reason stands above each dependency.
#[test]
fn the_readme_lists_every_dependency_with_its_reason() {
    let manifest = include_str!("../Cargo.toml");
    let (_, behind) = manifest.split_once("[dependencies]\n").expect("the section");
    let (dependencies, _) = behind.split_once("\n\n").expect("its end");
    let mut reason = Vec::new();
    for line in dependencies.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            reason.push(comment);
        } else {
            let (name, _) = line.split_once(" = ").expect("a dependency");
            let row = format!("| `{name}` | {} |", reason.join(" "));
            assert!(!reason.is_empty() && README.contains(&row), "{row}");
            reason.clear();
        }
    }
}
