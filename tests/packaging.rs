//! What is packaged with the binary: the systemd unit and the man page. `dist/try-systemd` tries the whole package.

#[path = "support/harness.rs"]
mod harness;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use harness::tests;
use support::process::{NORAY, empty_folder};

fn dist(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name)).unwrap()
}

/// Runs a program; where it is missing, the test is ignored.
fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| harness::ignore(format!("{program} does not run: {error}")))
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

fn systemd_finds_no_mistake_in_the_unit() {
    // The package puts the binary there; here it is where cargo put it.
    let unit = dist("noray.service").replace("/usr/bin/noray", NORAY);
    let file = empty_folder().join("noray.service");
    fs::write(&file, unit).unwrap();
    let arguments = ["verify", "--man=no", file.to_str().unwrap()];
    let output = run("systemd-analyze", &arguments);
    let complaints = text(&output);
    assert!(output.status.success() && complaints.is_empty(), "{complaints}");
}

fn the_unit_is_confined() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/noray.service");
    // In tenths: 1.5.
    let arguments = ["security", "--offline=true", "--threshold=15", unit.to_str().unwrap()];
    let output = run("systemd-analyze", &arguments);
    assert!(output.status.success(), "{}", text(&output));
}

fn a_wrong_configuration_is_not_retried() {
    let unit = dist("noray.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
    assert_eq!(line, Some("64 78"));
}

fn the_man_page_has_every_option() {
    let page = dist("noray.1");
    for command in [&["--help"][..], &["probe", "--help"], &["reload", "--help"]] {
        let help = text(&Command::new(NORAY).args(command).output().unwrap());
        let options = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
        for option in options.map(|option| option.trim_end_matches([',', ')', ']', '.'])) {
            assert!(page.contains(&format!("Fl -{option}")), "--{option}");
        }
    }
}

fn main() -> ExitCode {
    harness::run(tests![
        systemd_finds_no_mistake_in_the_unit,
        the_unit_is_confined,
        a_wrong_configuration_is_not_retried,
        the_man_page_has_every_option,
    ])
}
