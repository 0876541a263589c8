//! Games behind routers while the server's program is executed anew.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::lab::{Router, lab};
use crate::players::{Noray, Player, Stream, connect};

const PROGRAM: &str = env!("CARGO_BIN_EXE_noray");

/// A copy of the program, which can be replaced.
fn copy(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
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
    let program = copy("handover");
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

/// In a process namespace of its own, as the first process of a container is: it has no parent there, and its id is 1.
pub(crate) fn the_first_process_of_a_container_hands_over() {
    let lab = lab();
    let program = copy("container");
    let start = program.with_extension("sh");
    let script = format!(
        "#!/bin/sh\nexec unshare --pid --fork --kill-child --mount-proc {} \"$@\"\n",
        program.display()
    );
    fs::write(&start, script).unwrap();
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755)).unwrap();
    let noray = Noray::start_program(&lab.server, &start, &[]);
    let children = format!("/proc/{0}/task/{0}/children", noray.id());
    let inside = fs::read_to_string(children).unwrap().trim().to_owned();
    let [client, host] = [Router::Symmetric, Router::Home].map(|router| lab.lan(router));
    let mut stream = Stream::begin(&client.host(), &host.host(), &noray);
    for _ in 0..3 {
        replace(&program);
        let reload = lab.server.enter(|| {
            let mut reload = Command::new("nsenter");
            reload.args(["--target", &inside, "--pid", "--mount", PROGRAM, "reload", "--pid", "1"]);
            reload.output().unwrap()
        });
        assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
        stream.check_for(Duration::from_millis(100));
    }
    let mut newcomer = Player::join(&client.host(), &noray);
    connect(&mut newcomer, &mut stream.host);
    stream.client.line.settle();
    drop(noray);
    for file in [start, program] {
        fs::remove_file(file).unwrap();
    }
}
