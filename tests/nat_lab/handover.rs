//! Games behind routers while the server's program is executed anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::lab::{Router, lab};
use crate::players::{Noray, Player, Stream, connect};

const PROGRAM: &str = env!("CARGO_BIN_EXE_noray");

/// A copy of the program, which can be replaced.
fn copy() -> PathBuf {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("handover-{}", std::process::id()));
    replace(&path);
    path
}

fn replace(program: &Path) {
    let next = program.with_extension("next");
    fs::copy(PROGRAM, &next).unwrap();
    fs::rename(next, program).unwrap();
}

pub(crate) fn games_behind_all_kinds_of_routers_go_on_through_handovers() {
    let lab = lab();
    let program = copy();
    let noray = Noray::start_program(&lab.server, &program, &[]);
    let lans = [
        [lab.lan(Router::FullCone), lab.lan(Router::Home)],
        [lab.lan(Router::Symmetric), lab.lan(Router::CarrierGrade)],
    ];
    let mut streams: Vec<Stream> = lans
        .iter()
        .map(|[client, host]| Stream::begin(&client.host(), &host.host(), &noray))
        .collect();
    for _ in 0..3 {
        replace(&program);
        let pid = noray.id().to_string();
        thread::scope(|scope| {
            // In the server's network namespace, as on the server's own machine.
            let reload = scope.spawn(|| {
                lab.server.enter(|| Command::new(PROGRAM).args(["reload", "--pid", &pid]).status())
            });
            for stream in &mut streams {
                stream.check_for(Duration::from_millis(300));
            }
            assert!(reload.join().unwrap().unwrap().success());
        });
    }
    // Their connections and codes are the same too.
    let mut newcomer = Player::join(&lans[0][0].host(), &noray);
    for stream in &mut streams {
        connect(&mut newcomer, &mut stream.host);
        stream.client.line.settle();
        stream.check();
    }
    drop(noray);
    fs::remove_file(program).unwrap();
}
