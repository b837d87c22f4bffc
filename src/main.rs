//! The er-dev program: reads the command line, sets up logging, runs the command, and turns its end into an exit code.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use er_dev::cli::Cli;
use er_dev::commands;
use er_dev::report::log::{LogForm, LogOut};
use er_dev::report::{Journal, journal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        // A log on a full disk is no reason to panic: there is nowhere else to say so.
        .log_internal_errors(false)
        .event_format(LogForm::new(Journal::reads_standard_error()))
        .with_writer(LogOut::default)
        .with_env_filter(EnvFilter::new(&cli.common.log))
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("the runtime cannot be started: {error}")),
    };
    let ended = runtime.block_on(commands::run(cli));
    // A blocking read that hangs must not keep the program from ending.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail(failure.exit_code(), &failure.text),
    }
}

/// Says on standard error why the program ends. Where that is closed, only the code is left to say it.
fn fail(code: u8, text: &str) -> ExitCode {
    let mut text = format!("error: {text}\n");
    if Journal::reads_standard_error() {
        text = journal::prefixed(3, &text);
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}
