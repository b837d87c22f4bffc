//! `er-dev purge`: what er-dev keeps on this machine, and how to be rid of it.

use std::path::PathBuf;

use serde_json::json;

use crate::cli::{self, Common};
use crate::report::class::Class;
use crate::report::table::{Align, Table};
use crate::report::{Format, Report, words};
use crate::revision::lock::{self, LockError};
use crate::revision::pins::Pins;
use crate::revision::vault::Vaults;
use crate::state::StateDir;

use super::condition::MAKE_ROOM;
use super::context::state_failure;
use super::{Failure, env};

/// What is kept of one routine.
struct Kept {
    service: String,
    routine: String,
    dir: PathBuf,
    versions: usize,
    bytes: u64,
    pins: usize,
}

/// Lists what is kept; with `--yes` removes it.
pub(super) fn run(common: &Common, flags: &cli::Purge, report: &mut Report) -> Result<u8, Failure> {
    let path = match &common.state_dir {
        Some(path) => path.clone(),
        None => StateDir::usual(&env).map_err(state_failure)?,
    };
    let json = flags.json || common.format == Format::Json;
    if !path.is_dir() {
        let text = format!("nothing is kept: there is no {}\n", path.display());
        let object = json!({"v": 1, "state": path, "routines": [], "removed": false});
        report.print(&if json { format!("{object}\n") } else { text });
        return Ok(0);
    }
    let state = StateDir::existing(&path).map_err(state_failure)?;
    let vaults = Vaults::new(state.path());
    let kept = kept(&state, &vaults)?;
    if flags.yes {
        let in_use = locks(&kept)?;
        for kept in &kept {
            vaults.of(&kept.dir).remove().map_err(unusable)?;
        }
        state.remove().map_err(state_failure)?;
        drop(in_use);
    }
    if json {
        let routines: Vec<_> = kept.iter().map(object).collect();
        let object =
            json!({"v": 1, "state": state.path(), "routines": routines, "removed": flags.yes});
        report.print(&format!("{object}\n"));
    } else {
        report.print(&text(&state, &kept, flags.yes, report));
    }
    Ok(0)
}

fn kept(state: &StateDir, vaults: &Vaults) -> Result<Vec<Kept>, Failure> {
    let routines = state.routines().map_err(state_failure)?;
    let mut all = Vec::new();
    for (service, routine, dir) in routines {
        let versions = vaults.of(&dir).list().map_err(unusable)?;
        all.push(Kept {
            service,
            routine,
            versions: versions.len(),
            bytes: versions.iter().map(|kept| kept.bytes).sum(),
            pins: Pins::new(&dir).read().map_or(0, |pins| pins.len()),
            dir,
        });
    }
    Ok(all)
}

/// All locks, so that nothing is taken away from an er-dev that is at work.
fn locks(kept: &[Kept]) -> Result<Vec<(lock::WatchLock, lock::StepLock)>, Failure> {
    let lock = |kept: &Kept| {
        let watch = lock::watch(&kept.dir)?;
        Ok((watch, lock::step_now(&kept.dir)?))
    };
    let failed = |(kept, error): (&Kept, LockError)| {
        let name = &kept.routine;
        let text =
            format!("`{name}` is in use: {error}\n= help: stop it first; nothing was removed");
        Failure::new(Class::Locked, text)
    };
    let locks = kept
        .iter()
        .map(|kept| lock(kept).map_err(|error| failed((kept, error))));
    locks.collect()
}

fn unusable(error: impl std::fmt::Display) -> Failure {
    Failure::of_error(Class::State, error, MAKE_ROOM)
}

fn text(state: &StateDir, kept: &[Kept], removed: bool, report: &Report) -> String {
    let mut table = Table::new([
        ("service", Align::Left),
        ("routine", Align::Left),
        ("in the vault", Align::Right),
        ("size", Align::Right),
        ("pins", Align::Right),
    ]);
    for kept in kept {
        table.row([
            kept.service.clone(),
            kept.routine.clone(),
            words::plural(kept.versions as u64, "version"),
            words::size(kept.bytes),
            kept.pins.to_string(),
        ]);
    }
    let table = match kept {
        [] => String::new(),
        _ => table.render(report.look()),
    };
    let path = words::escape(&state.path().display().to_string());
    let foot = if removed {
        format!("removed from {path}; nothing on the service was touched\n")
    } else {
        format!(
            "kept in {path}, with locks, records of requests and the budget\n`er-dev purge --yes` removes it: versions in the vault cannot be restored then, and pins are gone\n"
        )
    };
    format!("{table}{foot}")
}

fn object(kept: &Kept) -> serde_json::Value {
    json!({
        "service": kept.service,
        "routine": kept.routine,
        "versions": kept.versions,
        "bytes": kept.bytes,
        "pins": kept.pins,
    })
}
