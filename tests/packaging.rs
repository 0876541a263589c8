//! What is packaged with the binary: the systemd unit, the man page and the image. `dist/try-systemd` tries the whole package.

#[path = "support/harness.rs"]
mod harness;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use harness::tests;
use noray::config::Config;
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

fn repository(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What `compose.yaml` gives a key on its line.
fn compose(key: &str) -> String {
    let file = repository("compose.yaml");
    let value = file.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
    value.unwrap_or_else(|| panic!("compose.yaml has no {key}")).to_owned()
}

fn docker_compose_accepts_the_file() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose.yaml");
    let output = run("docker-compose", &["-f", file.to_str().unwrap(), "config", "--quiet"]);
    assert!(output.status.success(), "{}", text(&output));
}

/// A container that is killed in the middle of its drain ends the games.
fn compose_waits_for_the_drain_and_has_files_for_all_players() {
    let grace: u64 = compose("stop_grace_period").trim_end_matches('s').parse().unwrap();
    let config = Config::default();
    assert!(grace >= config.drain_timeout.0.as_secs() + 10, "{grace} s");
    let files: usize = compose("nofile").parse().unwrap();
    let ports = config.relay_ports.as_slice().len();
    assert!(files >= config.max_connections + ports + 64, "{files} files");
    assert_eq!(compose("network_mode"), "host");
}

fn the_image_starts_the_program_itself_and_without_root() {
    let file = repository("Dockerfile");
    let (_, image) = file.split_once("\nFROM scratch\n").expect("the last stage");
    // A shell in between would keep SIGTERM to itself, and there is none.
    for line in ["ENTRYPOINT [\"/noray\"]", "USER 65532:65532", "STOPSIGNAL SIGTERM"] {
        assert!(image.lines().any(|l| l == line), "{line}");
    }
    let copied = repository(".dockerignore");
    for line in ["!.cargo", "!Cargo.toml", "!Cargo.lock", "!src"] {
        assert!(copied.lines().any(|l| l == line), "the build does not see {line}");
    }
}

/// In a clone, as it refuses what no commit has.
fn a_release_is_made_of_a_commit_that_the_pages_know() {
    let folder = empty_folder();
    let clone = folder.join("clone");
    let clone = clone.to_str().unwrap();
    let cloned = run("git", &["clone", "--quiet", env!("CARGO_MANIFEST_DIR"), clone]);
    if !cloned.status.success() {
        harness::ignore(format!("the sources are no git repository: {}", text(&cloned)));
    }
    let script = Path::new(clone).join("dist/release");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/release"), &script).unwrap();
    let git = |arguments: &[&str]| {
        let who = ["-C", clone, "-c", "user.name=test", "-c", "user.email=test@test.invalid"];
        let output = run("git", &[&who[..], arguments].concat());
        assert!(output.status.success(), "{}", text(&output));
    };
    let refusal = |arguments: &[&str]| {
        let output = run(script.to_str().unwrap(), arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    };
    assert!(refusal(&["--thrice"]).contains("no option --thrice"));
    assert!(refusal(&["one", "two"]).contains("one folder at most"));

    let manifest = repository("Cargo.toml").replacen("\nversion = \"", "\nversion = \"99.", 1);
    fs::write(Path::new(clone).join("Cargo.toml"), manifest).unwrap();
    let dirty = refusal(&[]);
    assert!(dirty.contains("commit these changes") && dirty.contains("Cargo.toml"), "{dirty}");

    git(&["commit", "--quiet", "--all", "--message=x"]);
    let unknown = refusal(&[]);
    assert!(unknown.contains("CHANGELOG.md has no '## 99."), "{unknown}");
}

fn main() -> ExitCode {
    harness::run(tests![
        systemd_finds_no_mistake_in_the_unit,
        the_unit_is_confined,
        a_wrong_configuration_is_not_retried,
        the_man_page_has_every_option,
        docker_compose_accepts_the_file,
        compose_waits_for_the_drain_and_has_files_for_all_players,
        the_image_starts_the_program_itself_and_without_root,
        a_release_is_made_of_a_commit_that_the_pages_know,
    ])
}
