//! `er-dev config`: looks at the configuration without using it.

use crate::cli::Common;
use crate::config::{Routine, Upload};
use crate::report::words::plural;
use crate::report::{Format, Report};

use super::{Failure, load};

/// Checks the configuration and says what it holds.
pub(super) fn check(common: &Common, report: &mut Report) -> Result<u8, Failure> {
    let config = load(common)?;
    let to_staging = |routine: &Routine| match routine.upload {
        Upload::Revision => routine.name.to_string(),
        Upload::Staging => format!("{} to staging", routine.name),
    };
    let shown: Vec<String> = config.routines.iter().map(to_staging).collect();
    let names: Vec<&str> = config
        .routines
        .iter()
        .map(|routine| routine.name.as_str())
        .collect();
    let line = match common.format {
        Format::Text | Format::Logfmt => format!(
            "{} is fine: {} ({}), {}\n",
            config.file.display(),
            plural(names.len() as u64, "routine"),
            shown.join(", "),
            config.service.endpoint.url,
        ),
        Format::Json => {
            let object = serde_json::json!({
                "v": 1,
                "file": config.file.to_string_lossy(),
                "endpoint": config.service.endpoint.url,
                "routines": names,
            });
            format!("{object}\n")
        }
    };
    report.print(&line);
    Ok(0)
}
