//! `noray reload`: makes a running server read its configuration again, and says whether that worked.

use std::process::ExitCode;

use argh::FromArgs;
use noray::operation::logging::LogFormat;
use noray::operation::reload_request;

use crate::exit::{self, fail};

/// Make a running server read its configuration again, and wait until it is in force. If there are mistakes, print them
/// and exit with status 1.
#[derive(FromArgs)]
#[argh(subcommand, name = "reload", help_triggers("-h", "--help", "help"))]
pub(crate) struct ReloadCommand {
    /// process id of the server; 1 in a container, $MAINPID in systemd's ExecReload=
    #[argh(option, arg_name = "pid")]
    pid: u32,
}

impl ReloadCommand {
    pub(crate) fn run(&self) -> ExitCode {
        match reload_request::request(self.pid) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => fail(exit::FAILURE, LogFormat::of_stderr(), &failure.to_string()),
        }
    }
}
