//! `er-dev status`: how every running watch stands.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{self, Common};
use crate::control::client::STATUS_PATIENCE;
use crate::control::status::Status;
use crate::report::words::escape;
use crate::report::{Format, Report};

use super::daemons::{self, Daemon, Daemons};
use super::signals::Signals;
use super::{Failure, terminal};

/// The pause between two looks with `--watch`.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows every watch that is meant.
pub(super) async fn run(
    common: &Common,
    flags: &cli::Status,
    report: &mut Report,
) -> Result<u8, Failure> {
    if flags.watch {
        return follow(common, flags, report).await;
    }
    let daemons = daemons::find(common, STATUS_PATIENCE).await?;
    report.print(&page(&daemons, is_json(common, flags), report));
    match daemons.none() {
        Some(none) => Err(none),
        None => Ok(code(&daemons)),
    }
}

/// Shows them again and again until a signal or the end of whoever reads; the exit code is that of the last look. On a
/// terminal each page takes the place of the one before, elsewhere it is written if more than times and counts changed.
async fn follow(common: &Common, flags: &cli::Status, report: &mut Report) -> Result<u8, Failure> {
    let json = is_json(common, flags);
    let live = !json && !terminal::is_dumb() && report.go_live(terminal::size());
    let signals = Signals::listen()?;
    let mut stop = std::pin::pin!(signals.at(1));
    let mut told = None;
    loop {
        let daemons = daemons::find(common, STATUS_PATIENCE).await?;
        let none = daemons.none();
        let mut shown = page(&daemons, json, report);
        if let Some(none) = none.as_ref().filter(|_| !json) {
            shown.push_str(&format!("{none}\n"));
        }
        if live {
            report.page(&shown, terminal::size().unwrap_or((80, 24)));
        } else {
            let now = essence(&daemons);
            if told.as_ref() != Some(&now) {
                let space = if told.is_some() && !json { "\n" } else { "" };
                report.print(&format!("{space}{shown}"));
                told = Some(now);
            }
        }
        let code = none.map_or_else(|| code(&daemons), |none| none.exit_code());
        if terminal::reader_is_gone() {
            return Ok(code);
        }
        tokio::select! {
            () = &mut stop => return Ok(code),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn is_json(common: &Common, flags: &cli::Status) -> bool {
    flags.json || common.format == Format::Json
}

/// 0 if all is well, 1 if something is not.
fn code(daemons: &Daemons) -> u8 {
    let well = |daemon: &Daemon| daemon.status.as_ref().is_ok_and(|status| status.is_well());
    u8::from(!daemons.list.iter().all(well))
}

fn page(daemons: &Daemons, json: bool, report: &Report) -> String {
    if json {
        return daemons::object(daemons.list.iter().map(Entry::of).collect(), &[]);
    }
    let blocks: Vec<String> = daemons
        .list
        .iter()
        .map(|daemon| text(daemon, report))
        .collect();
    blocks.join("\n")
}

/// What is worth telling when it changes: everything but what changes by itself.
fn essence(daemons: &Daemons) -> Vec<Result<Status, String>> {
    let list = daemons.list.iter();
    let plain = list.map(|daemon| match &daemon.status {
        Ok(status) => Ok(status.without_counts()),
        Err(error) => Err(format!("{} {error}", daemon.found.pid)),
    });
    plain.collect()
}

/// A watch in JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Known(&'a Status),
    Silent { pid: u32, error: String },
}

impl<'a> Entry<'a> {
    fn of(daemon: &'a Daemon) -> Self {
        match &daemon.status {
            Ok(status) => Self::Known(status),
            Err(error) => Self::Silent {
                pid: daemon.found.pid,
                error: error.to_string(),
            },
        }
    }
}

fn text(daemon: &Daemon, report: &Report) -> String {
    match &daemon.status {
        Ok(status) => status.render(Timestamp::now(), report.look()),
        Err(error) => {
            let why = escape(&error.to_string());
            format!("er-dev  pid {}  {why}\n", daemon.found.pid)
        }
    }
}
