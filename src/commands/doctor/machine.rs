//! What can be told of this machine: watches, file systems, er-dev's own directories, other watches.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::Common;
use crate::config::{Backend, Config};
use crate::control::place;
use crate::report::words::{plural, size};
use crate::state::StateDir;
use crate::watch::survey::{Root, Survey, survey};

use super::super::{context, daemons, env};
use super::{Check, Verdict};

/// How long a running watch may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Less free space than this, in bytes, and what is to be deleted may not fit into the vault.
const LITTLE_SPACE: u64 = 16 << 20;

/// All of it.
pub(super) async fn look(common: &Common, config: Option<&Config>) -> Vec<Check> {
    let mut checks = Vec::new();
    let state = match &common.state_dir {
        Some(path) => Ok(path.clone()),
        None => StateDir::usual(&env),
    };
    if let Some(config) = config {
        let targets: Vec<_> = config.routines.iter().map(context::target).collect();
        let private = state.as_deref().unwrap_or(Path::new("/"));
        let backend = config.watch.backend;
        let found = survey(&targets, backend, private);
        checks.push(watches(&found, backend));
        checks.extend(found.roots.iter().map(root));
    }
    match &state {
        Ok(path) => checks.extend(state_directory(path)),
        Err(error) => {
            let check = Check::new("state", Verdict::Bad, error.to_string());
            checks.push(check.cure(error.help()));
        }
    }
    checks.push(runtime_directory(common));
    checks.push(others(common).await);
    checks
}

fn watches(found: &Survey, backend: Backend) -> Check {
    let limits = found.limits.iter();
    let limits: Vec<String> = limits
        .map(|(key, most)| format!("{key} is {most}"))
        .collect();
    let limits = limits.join(", ");
    let needed = plural(found.needed as u64, "watch").replace("watchs", "watches");
    match (&found.lack, backend) {
        (_, Backend::Poll) => {
            let reason = format!("none is needed, since `backend` is \"poll\"; {limits}");
            Check::new("inotify", Verdict::Ok, reason)
        }
        (None, _) => {
            let reason = format!("{needed} and 1 instance are needed, and can be had; {limits}");
            Check::new("inotify", Verdict::Ok, reason)
        }
        (Some((what, help)), Backend::Auto) => {
            let reason = format!("{what}; until then files are looked at instead");
            Check::new("inotify", Verdict::Bad, reason).cure(help)
        }
        (Some((what, help)), Backend::Native) => {
            Check::new("inotify", Verdict::Bad, what).cure(help)
        }
    }
}

fn root(root: &Root) -> Check {
    let path = root.path.display().to_string();
    if !root.is_there {
        let check = Check::new(
            "directory",
            Verdict::Bad,
            "it is not there, so its routines halt",
        );
        return check.about(path).cure("make it, or correct `entry`");
    }
    let how = match root.backend {
        "inotify" => "changes are told by events",
        "poll" => "changes are looked for",
        _ => "changes are told by events and looked for, since events do not tell of all of them",
    };
    let reason = format!("on {}, {how}", root.file_system);
    Check::new("directory", Verdict::Ok, reason).about(path)
}

/// The state directory as it is, or the place where it would be made.
fn state_directory(path: &Path) -> Vec<Check> {
    let shown = path.display().to_string();
    let check = |verdict, reason: String| Check::new("state", verdict, reason).about(&shown);
    let Ok(metadata) = std::fs::metadata(path) else {
        let above = path.ancestors().skip(1).find(|above| above.exists());
        let above = above.map_or_else(|| PathBuf::from("."), Path::to_owned);
        let writable = rustix::fs::access(&above, rustix::fs::Access::WRITE_OK);
        return vec![match writable {
            Ok(()) => check(
                Verdict::Ok,
                "not there yet; the first command that needs it makes it".into(),
            ),
            Err(error) => {
                let reason = format!(
                    "not there, and {} cannot be written: {error}",
                    above.display()
                );
                check(Verdict::Bad, reason)
                    .cure("give a directory of your own with `--state-dir DIR`")
            }
        }];
    };
    let mode = std::os::unix::fs::MetadataExt::mode(&metadata) & 0o7777;
    let usable = match StateDir::examine(path) {
        Ok(()) => check(
            Verdict::Ok,
            format!("your own, mode {mode:04o}, can be written"),
        ),
        Err(error) => check(Verdict::Bad, error.to_string()).cure(error.help()),
    };
    let space = match rustix::fs::statvfs(path) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let reason = format!("{} free, and the vault takes 256 MiB at most", size(free));
            let check = Check::new("space", Verdict::Ok, reason);
            match free < LITTLE_SPACE {
                true => Check {
                    verdict: Verdict::Bad,
                    ..check
                }
                .cure("make room: what cannot be saved first is not deleted"),
                false => check,
            }
        }
        Err(error) => Check::new("space", Verdict::Unknown, error.to_string()),
    };
    vec![usable, space.about(&shown)]
}

fn runtime_directory(common: &Common) -> Check {
    let dir = match daemons::directory(common, None) {
        Ok(dir) => dir,
        Err(failure) => return Check::wrong("runtime", &failure.text),
    };
    let check = |verdict, reason: String| {
        Check::new("runtime", verdict, reason).about(dir.display().to_string())
    };
    if std::fs::symlink_metadata(&dir).is_err() {
        return check(Verdict::Ok, "not there yet; a watch makes it".into());
    }
    match place::check(&dir) {
        Ok(()) => check(Verdict::Ok, "your own, and closed to others".into()),
        Err(error) => check(Verdict::Bad, error.to_string()).cure(error.help()),
    }
}

async fn others(common: &Common) -> Check {
    let name = "watch";
    let found = match daemons::find(common, PATIENCE).await {
        Ok(found) => found,
        Err(failure) => {
            return Check::new(
                name,
                Verdict::Unknown,
                failure.text.lines().next().unwrap_or(""),
            );
        }
    };
    let pids: Vec<String> = found
        .list
        .iter()
        .map(|it| it.found.pid.to_string())
        .collect();
    match pids.is_empty() {
        true => Check::new(name, Verdict::Ok, "no other er-dev watches these routines"),
        false => {
            let pids = pids.join(", ");
            let reason = format!(
                "an er-dev watches already (pid {pids}); a second one ends with exit code 75"
            );
            Check::new(name, Verdict::Note, reason)
        }
    }
}
