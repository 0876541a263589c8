//! `noray reload`: has a running server read its configuration again, and says whether that went well.

use std::process::ExitCode;

use argh::FromArgs;
use noray::operation::logging::LogFormat;
use noray::operation::reload_request;

use crate::command_line::{exit, fail};

/// Have a running server read its configuration again, and wait until it is in force. If it has mistakes, they are printed
/// and the exit status is 1.
#[derive(FromArgs)]
#[argh(subcommand, name = "reload")]
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
