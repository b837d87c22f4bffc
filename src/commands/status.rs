//! `er-dev status`: how every running watch stands.

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{self, Common};
use crate::control::client::STATUS_PATIENCE;
use crate::control::status::Status;
use crate::report::words::escape;
use crate::report::{Format, Report};

use super::Failure;
use super::daemons::{self, Daemon};

/// Shows every watch that is meant.
pub(super) async fn run(
    common: &Common,
    flags: &cli::Status,
    report: &mut Report,
) -> Result<u8, Failure> {
    let daemons = daemons::find(common, STATUS_PATIENCE).await?;
    if flags.json || common.format == Format::Json {
        let entries = daemons.list.iter().map(Entry::of).collect();
        report.print(&daemons::object(entries, &[]));
    } else {
        for (index, daemon) in daemons.list.iter().enumerate() {
            let space = if index > 0 { "\n" } else { "" };
            report.print(&format!("{space}{}", text(daemon, report)));
        }
    }
    if let Some(none) = daemons.none() {
        return Err(none);
    }
    let well = |daemon: &Daemon| daemon.status.as_ref().is_ok_and(|status| status.is_well());
    Ok(u8::from(!daemons.list.iter().all(well)))
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
