//! `er-dev config`: looks at the configuration without using it.

use crate::cli::Common;
use crate::report::words::plural;
use crate::report::{Format, Report};

use super::{Failure, load};

/// Checks the configuration and says what it holds.
pub(super) fn check(common: &Common, report: &mut Report) -> Result<u8, Failure> {
    let config = load(common)?;
    let names: Vec<&str> = config
        .routines
        .iter()
        .map(|routine| routine.name.as_str())
        .collect();
    let line = match common.format {
        Format::Text => format!(
            "{} is fine: {} ({}), {}{}\n",
            config.file.display(),
            plural(names.len() as u64, "routine"),
            names.join(", "),
            match config.builds().len() {
                0 => String::new(),
                builds => format!("{}, ", plural(builds as u64, "build")),
            },
            config.service.endpoint.url,
        ),
        Format::Json => {
            let object = serde_json::json!({
                "v": 1,
                "file": config.file.to_string_lossy(),
                "endpoint": config.service.endpoint.url,
                "routines": names,
                "builds": config.builds().iter().map(|(build, _)| &build.command).collect::<Vec<_>>(),
            });
            format!("{object}\n")
        }
    };
    report.print(&line);
    Ok(0)
}
