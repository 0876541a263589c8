//! What the project promises of itself: the example file and the pages agree with the program, and the pages with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use noray::config::{Config, Effective, KEYS, Sources};
use noray::label::Label;
use noray::operation::status::Status;
use serde_json::Value;

const EXAMPLE: &str = include_str!("../noray.conf.example");
const MANIFEST: &str = include_str!("../Cargo.toml");
const FUZZ_LOCK: &str = include_str!("../fuzz/Cargo.lock");
const README: &str = include_str!("../README.md");
const CONTRIBUTING: &str = include_str!("../docs/contributing.md");
const MONITORING: &str = include_str!("../docs/monitoring.md");
const PROTOCOL: &str = include_str!("../docs/protocol.md");
const SECURITY: &str = include_str!("../docs/security.md");
const SEVERAL_SERVERS: &str = include_str!("../docs/several-servers.md");
const TROUBLESHOOTING: &str = include_str!("../docs/troubleshooting.md");
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
            default => format!("`{default}`"),
        };
        assert_eq!(*row, format!("| `{}` | {default} | {} |", key.name, key.help));
    }
}

#[test]
fn the_protocols_page_lists_every_error_code() {
    for code in noray::core::protocol::ErrorCode::ALL {
        assert!(PROTOCOL.contains(&format!("| `{}` |", code.label())), "{code:?}");
    }
}

#[test]
fn the_page_on_troubleshooting_explains_every_drop_reason_as_the_server_does() {
    let (_, reasons) = TROUBLESHOOTING.split_once("## Why datagrams are dropped").expect("it");
    let rows: Vec<String> =
        reasons.lines().filter(|line| line.starts_with("| `")).map(plain).collect();
    let all = noray::core::relay::DropReason::ALL.iter();
    let expected = all.map(|reason| {
        let help = reason.help();
        let remedy = help.remedy.unwrap_or("none is needed");
        format!("| {reason} | {} | {remedy} |", help.meaning)
    });
    assert_eq!(rows, expected.collect::<Vec<_>>(), "the same words as in operation/help.rs");
}

/// A line without its marks for code and links.
fn plain(line: &str) -> String {
    let line = line.replace('`', "");
    let mut links = line.split("](");
    let first = links.next().unwrap_or_default().to_owned();
    let text = links.fold(first, |text, rest| text + rest.split_once(')').expect("a target").1);
    text.replace('[', "")
}

#[test]
fn the_page_on_monitoring_lists_every_field_of_the_status() {
    let (_, fields) = MONITORING.split_once("\n## The status as JSON\n").expect("the section");
    let (fields, _) = fields.split_once("\n## ").expect("the next section");
    let rows = fields.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let listed: Vec<&str> = rows.map(|(name, _)| name).collect();
    let metrics = noray::operation::metrics::Metrics::default();
    metrics.relay_drops.of(noray::core::relay::DropReason::NoPair).add(1);
    metrics.bounds_reached.of(noray::limits::bounds::Bound::Commands).add(1);
    let warnings = vec![noray::operation::status::Warning::default()];
    let status = Status { warnings, ..Status::of(&metrics) };
    let mut names = Vec::new();
    add_names("", &serde_json::to_value(&status).expect("JSON"), &mut names);
    assert_eq!(
        listed.iter().collect::<BTreeSet<_>>(),
        names.iter().map(String::as_str).collect::<Vec<_>>().iter().collect()
    );
}

/// The names of all values in `value`: `players.connected`, `warnings[].text`.
fn add_names(name: &str, value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let dot = if name.is_empty() { "" } else { "." };
            fields
                .iter()
                .for_each(|(key, value)| add_names(&format!("{name}{dot}{key}"), value, names));
        }
        Value::Array(items) => add_names(&format!("{name}[]"), &items[0], names),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            names.push(name.to_owned());
        }
    }
}

#[test]
fn the_page_on_several_servers_shows_the_name_servers_files() {
    for file in NAME_SERVER_FILES {
        let shown: String = file.lines().map(|line| format!("    {line}\n")).collect();
        assert!(SEVERAL_SERVERS.contains(&shown.replace("    \n", "\n")), "{file}");
    }
}

#[test]
fn the_page_on_monitoring_lists_every_metric() {
    let text = noray::operation::metrics::Metrics::default().text();
    let heads = text.lines().filter_map(|line| line.strip_prefix("# TYPE noray_"));
    for name in heads.map(|head| head.split(' ').next().unwrap()) {
        assert!(MONITORING.contains(&format!("`noray_{name}`")), "noray_{name}");
    }
}

#[test]
fn the_page_on_security_lists_every_bound_with_what_counts_it() {
    let (_, limits) = SECURITY.split_once("\n## Limits\n").expect("the section");
    let (limits, _) = limits.split_once("\n## ").expect("the next section");
    let labels = noray::limits::bounds::Bound::ALL.iter().map(|bound| bound.label());
    let ends =
        noray::limits::connection_policy::DisconnectReason::ALL.iter().map(|reason| reason.label());
    for label in labels.chain(ends) {
        assert!(limits.contains(&format!("`{label}`")), "{label}");
    }
    let sources = sources(&repository().join("src"));
    let names = sources.split(|c: char| !c.is_alphanumeric() && c != '_').collect::<BTreeSet<_>>();
    for row in limits.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split('|').collect();
        assert_eq!(cells.len(), 7, "{row}");
        for name in cells[3].split('`').skip(1).step_by(2) {
            assert!(names.contains(name), "{name} is nowhere in the code: {row}");
        }
    }
}

/// In `Cargo.toml` the reason stands above each dependency.
#[test]
fn the_page_on_contributing_lists_every_dependency_with_its_reason() {
    let mut reason = Vec::new();
    for line in dependencies() {
        if let Some(comment) = line.strip_prefix("# ") {
            reason.push(comment);
        } else {
            let row = format!("| `{}` | {} |", name_of(line), reason.join(" "));
            assert!(!reason.is_empty() && CONTRIBUTING.contains(&row), "{row}");
            reason.clear();
        }
    }
}

/// `fuzz/` is a package of its own, and its lock file is easily forgotten.
#[test]
fn the_lock_file_of_the_fuzz_targets_knows_todays_dependencies() {
    let (_, behind) = FUZZ_LOCK.split_once("\nname = \"noray\"\n").expect("noray");
    let (_, behind) = behind.split_once("dependencies = [\n").expect("its dependencies");
    let (locked, _) = behind.split_once("\n]").expect("their end");
    let locked: BTreeSet<&str> =
        locked.lines().map(|line| line.trim_matches([' ', '"', ','])).collect();
    // What belongs to a feature that the targets do without is not in their lock file.
    let is_wanted = |line: &&str| !line.starts_with('#') && !line.contains("optional = true");
    let wanted = dependencies().filter(is_wanted).map(name_of).collect();
    assert_eq!(
        locked, wanted,
        "run `cargo metadata --manifest-path fuzz/Cargo.toml`, which mends it"
    );
}

/// The lines of `Cargo.toml` on dependencies, with their comments.
fn dependencies() -> impl Iterator<Item = &'static str> {
    let (_, behind) = MANIFEST.split_once("[dependencies]\n").expect("the section");
    behind.split("\n\n").next().expect("its first paragraph").lines()
}

fn name_of(dependency: &str) -> &str {
    dependency.split_once(" = ").expect("a dependency").0
}

#[test]
fn the_front_page_is_short_and_links_to_every_page() {
    assert!(README.lines().count() <= 250);
    for name in pages().keys().filter(|name| *name != "README.md") {
        assert!(README.contains(&format!("]({name})")), "{name}");
    }
}

#[test]
fn long_pages_begin_with_their_contents() {
    for (name, page) in pages().iter().filter(|(name, _)| name.starts_with("docs/")) {
        let sections = page.lines().filter_map(|line| line.strip_prefix("## "));
        for section in sections.filter(|_| page.lines().count() > 60) {
            assert!(page.contains(&format!("](#{})", anchor(section))), "{name}: {section}");
        }
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = pages();
    for (name, page) in &pages {
        for link in relative_links(page) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { name.clone() } else { resolve(name, file) };
            assert!(repository().join(&target).is_file(), "{name}: {link}");
            if !heading.is_empty() {
                let headings = pages[&target].lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#')));
                assert!(anchors.any(|anchor| anchor == heading), "{name}: {link}");
            }
        }
    }
}

/// The folder of the package's documentation is laid out as the repository, so that links lead to the same files.
#[test]
fn the_package_installs_every_page_and_what_they_link_to() {
    let pages = pages();
    let links = pages.iter().flat_map(|(name, page)| {
        let files = relative_links(page).map(|link| link.split('#').next().unwrap());
        files.filter(|file| !file.is_empty()).map(|file| resolve(name, file))
    });
    for target in links.chain(pages.keys().cloned()) {
        let (folder, source) = match target.rsplit_once('/') {
            Some((folder, file)) => {
                let end = file.rsplit_once('.').expect("a kind of file").1;
                (format!("{folder}/"), format!("{folder}/*.{end}"))
            }
            None => (String::new(), target.clone()),
        };
        let asset = format!("[\"{source}\", \"usr/share/doc/noray/{folder}\", \"644\"]");
        assert!(MANIFEST.contains(&asset), "{target}: {asset}");
    }
}

/// Sentences and cells of tables, not what a page shows as code.
#[test]
fn nothing_stands_in_two_pages() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (name, page) in pages() {
        let prose = page.lines().filter(|line| !line.starts_with("    ")).map(str::trim);
        let prose = prose.collect::<Vec<_>>().join(" ");
        for sentence in prose.split(". ").flat_map(|part| part.split('|')).map(str::trim) {
            if sentence.len() > 60
                && sentence.contains(' ')
                && let Some(other) = seen.insert(sentence.to_owned(), name.clone())
            {
                panic!("in {other} and {name}: {sentence}");
            }
        }
    }
}

/// There is one place to fill in, and no invented address anywhere: `.invalid` says by its name that it is none.
#[test]
fn the_address_for_reports_stands_in_one_place() {
    let pages = pages();
    let contacts = pages["SECURITY.md"].lines().filter_map(|line| line.strip_prefix("Contact: "));
    let [contact] = contacts.collect::<Vec<_>>()[..] else { panic!("one line with the address") };
    let is_filled_in = contact.contains('@') || contact.contains("https://");
    assert!(contact == "`NOT-YET-FILLED-IN`" || is_filled_in, "{contact}");
    let manifest = ("Cargo.toml".to_owned(), MANIFEST.to_owned());
    for (name, text) in
        pages.into_iter().filter(|(name, _)| name != "SECURITY.md").chain([manifest])
    {
        for word in text.split([' ', '\n', '<', '>', '(', ')', '"', '`']) {
            let is_address =
                word.split_once('@').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
            assert!(!is_address || word.ends_with(".invalid"), "{name}: {word}");
        }
    }
}

/// Where a test file has a harness of its own, `#[test]` functions are left out without a word.
#[test]
fn files_with_their_own_harness_have_no_standard_tests() {
    let tests = MANIFEST.split("[[test]]\nname = \"").skip(1);
    for name in tests.map(|test| test.split('"').next().expect("a name")) {
        let root = repository().join("tests");
        let files = match fs::read_dir(root.join(name)) {
            Ok(entries) => entries.map(|entry| entry.expect("a file").path()).collect(),
            Err(_) => vec![root.join(name).with_extension("rs")],
        };
        for file in files.iter().filter(|file| file.is_file()) {
            let text = fs::read_to_string(file).expect("UTF-8");
            assert!(!text.contains("#[test]"), "{}: list it in main instead", file.display());
        }
    }
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All pages by their path in the repository.
fn pages() -> BTreeMap<String, String> {
    let files = |folder: &str| fs::read_dir(repository().join(folder)).expect("a folder");
    let paths = files("").chain(files("docs")).map(|entry| entry.expect("a file").path());
    let pages = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(repository()).expect("below").to_str().expect("UTF-8");
        (name.to_owned(), fs::read_to_string(&path).expect("UTF-8"))
    };
    pages.map(read).collect()
}

/// The text of all files in and below a folder.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("it").path());
    let read = |path: PathBuf| {
        if path.is_dir() { sources(&path) } else { fs::read_to_string(path).expect("UTF-8") }
    };
    entries.map(read).collect()
}

fn relative_links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|behind| behind.split(')').next());
    targets.filter(|target| !target.starts_with("https://"))
}

/// Where a link in the page `name` leads, from the repository's top.
fn resolve(name: &str, link: &str) -> String {
    match (link.strip_prefix("../"), name.rsplit_once('/')) {
        (Some(above), Some(_)) => above.to_owned(),
        (None, Some((folder, _))) => format!("{folder}/{link}"),
        (_, None) => link.to_owned(),
    }
}

/// The anchor that a heading gets where Markdown is shown.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}
