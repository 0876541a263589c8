//! The harness of tests that not every machine can run: which of them cannot shows as ignored, with the reason.
//!
//! The standard one knows only at compile time what is ignored, and counts a test that returns early as passed.

use std::fmt::Display;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::thread;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// A test's name and its function.
pub(crate) type Test = (&'static str, fn());

/// The names and functions of tests. One that is missing here is dead code to the compiler.
macro_rules! tests {
    ($($test:path,)+) => { &[$((stringify!($test), $test as fn())),+] };
}
pub(crate) use tests;

/// Why a test cannot run here, on one line.
struct Ignored(String);

/// Ends the test on whose thread it is called, and has it shown as ignored.
pub(crate) fn ignore(reason: impl Display) -> ! {
    // Unlike a panic this prints nothing.
    resume_unwind(Box::new(Ignored(reason.to_string().replace('\n', " "))))
}

/// Runs the tests that the command line asks for, as the standard harness does.
pub(crate) fn run(tests: &'static [Test]) -> ExitCode {
    let trial = |(name, test): &Test| {
        let (name, test) = (*name, *test);
        Trial::ignorable_test(name, move || run_one(name, test))
    };
    libtest_mimic::run(&Arguments::from_args(), tests.iter().map(trial).collect()).exit_code()
}

/// Each has a thread of its own, which some of them change for good.
fn run_one(name: &str, test: fn()) -> Result<Completion, Failed> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(test)?;
    let Err(panic) = thread.join() else { return Ok(Completion::Completed) };
    match panic.downcast::<Ignored>() {
        Ok(ignored) => Ok(Completion::ignored_with(ignored.0)),
        Err(_) => Err("it panicked, see above".into()),
    }
}
