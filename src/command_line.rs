//! The command line: options and subcommands.

use std::path::PathBuf;
use std::process::ExitCode;

use argh::FromArgs;
use noray::operation::config_source::ConfigSource;
use noray::operation::logging::LogFormat;

use crate::exit::{self, fail, print};
use crate::probe;
use crate::reload::ReloadCommand;
use crate::status::StatusCommand;

/// Introduces players of online games to each other and relays their UDP traffic where routers forbid it.
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help", "help"))]
#[argh(note = "Every key is explained in noray.conf.example.")]
pub(crate) struct Args {
    /// file of KEY=value lines (default: ./noray.conf, if it exists)
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
    /// set a key, over file and environment; may be repeated
    #[argh(option, arg_name = "key=value")]
    pub(crate) set: Vec<String>,
    /// print the effective configuration with the origin of each value, and exit: 0 if it is right, 78 if not
    #[argh(switch)]
    pub(crate) check_config: bool,
    /// print the version, and exit
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    pub(crate) command: Option<Subcommand>,
}

/// What the program does instead of running a server.
#[derive(FromArgs)]
#[argh(subcommand)]
pub(crate) enum Subcommand {
    /// Play two players against a server elsewhere.
    Probe(probe::Request),
    /// Make a running server read its configuration again.
    Reload(ReloadCommand),
    /// Show how a running server does.
    Status(StatusCommand),
}

impl Subcommand {
    /// `source` is the configuration that the options before the command name.
    pub(crate) fn run(&self, source: ConfigSource) -> ExitCode {
        match self {
            Self::Probe(request) => probe::run(request),
            Self::Reload(command) => command.run(),
            Self::Status(command) => command.run(source),
        }
    }
}

impl Args {
    /// Reads the process's arguments.
    ///
    /// # Errors
    /// The exit status, after help, the version or a mistake was printed.
    pub(crate) fn read(format: LogFormat) -> Result<Self, ExitCode> {
        let arguments: Vec<String> = std::env::args_os()
            .skip(1)
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match Self::from_args(&["noray"], &arguments) {
            Ok(args) if args.version => {
                Err(print(concat!("noray ", env!("CARGO_PKG_VERSION"), "\n")))
            }
            Ok(args) => Ok(args),
            Err(early) if early.status.is_ok() => Err(print(&early.output)),
            Err(early) => Err(fail(exit::USAGE, format, &early.output)),
        }
    }
}
