//! A configuration file, the environment and a command line of any bytes.

use noray::config::{ConfigChanges, Effective, Sources};

pub(crate) fn check(data: &[u8]) {
    let parts: Vec<&[u8]> = data.splitn(3, |byte| *byte == 0).collect();
    let text = |index: usize| parts.get(index).map(|part| String::from_utf8_lossy(part));
    let environment = text(1).and_then(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    });
    let sources = Sources {
        file: Some(("f".to_owned(), parts[0].to_vec())),
        environment: environment.into_iter().collect(),
        command_line: text(2).map(|line| line.into_owned()).into_iter().collect(),
        read_file,
    };
    match Effective::read(&sources) {
        Ok(effective) => {
            reads_back(&effective);
            let reload = ConfigChanges::new(&effective.config, effective.config.clone());
            assert!(
                reload.changed.is_empty()
                    && reload.awaits_restart.is_empty()
                    && reload.needs_handover.is_empty()
            );
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            for mistake in mistakes.iter() {
                let place = mistake.to_string();
                assert!(!mistake.what.is_empty() && !mistake.key.is_empty());
                let places = ["f:", "environment:", "command line:", "default:"];
                assert!(places.iter().any(|start| place.starts_with(start)), "{place}");
                assert!(!place.contains('\n'), "a line each: {place:?}");
            }
        }
    }
}

/// A file has its path as its only word.
fn read_file(path: &str) -> Result<Vec<u8>, String> {
    if path == "none" { Err("there is none".to_owned()) } else { Ok(path.into()) }
}

/// What is shown is a configuration file that means the same.
fn reads_back(effective: &Effective) {
    let file = Some(("shown".to_owned(), effective.to_string().into_bytes()));
    let again = Effective::read(&Sources { file, read_file, ..Sources::default() });
    let again = again.unwrap_or_else(|mistakes| panic!("{mistakes:?} in\n{effective}"));
    assert_eq!(again.config, effective.config, "\n{effective}");
}
