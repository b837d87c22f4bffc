//! Whether this machine lets er-dev watch what it has to: the limits of the system, and what each root lies on. For whoever
//! asks before a watch is started; nothing of it is kept.

use std::path::{Path, PathBuf};

use super::Target;
use super::backend::{self, INSTANCES, Lack, WATCHES};
use super::plan::Plan;
use crate::config::Backend;

/// What was found.
#[derive(Debug)]
pub struct Survey {
    /// How many directories have to be watched.
    pub needed: usize,
    /// The limits of the system that bound watches and instances, each with its name.
    pub limits: [(&'static str, String); 2],
    /// What is wrong and what helps, if the system did not let all of them be watched; `None` where it did, or where
    /// nothing is to be watched by events.
    pub lack: Option<(String, String)>,
    /// The roots, each once.
    pub roots: Vec<Root>,
}

/// A directory that entries lie in.
#[derive(Debug)]
pub struct Root {
    /// Its path.
    pub path: PathBuf,
    /// Whether it is there.
    pub is_there: bool,
    /// The file system it is on, by name or number.
    pub file_system: String,
    /// How changes in it are noticed.
    pub backend: &'static str,
}

/// Looks at everything. Watches are asked for and given back at once.
pub fn survey(targets: &[Target], setting: Backend, private: &Path) -> Survey {
    let mut plan = Plan::new(private);
    for (routine, target) in targets.iter().enumerate() {
        plan.add(routine, target);
    }
    let needed = plan.directories.len();
    let lack = match setting {
        Backend::Poll => None,
        Backend::Auto | Backend::Native => try_out(plan.directories.keys()),
    };
    let mut paths: Vec<&Path> = targets.iter().map(|target| target.root.as_path()).collect();
    paths.sort();
    paths.dedup();
    let root = |path: &Path| Root {
        path: path.to_owned(),
        is_there: path.is_dir(),
        file_system: backend::file_system_name(path),
        backend: backend::of(path, setting).name(),
    };
    Survey {
        needed,
        limits: [backend::limit(WATCHES), backend::limit(INSTANCES)],
        lack: lack.map(|lack| backend::told(&lack, needed)),
        roots: paths.into_iter().map(root).collect(),
    }
}

/// Why not all of these can be watched.
#[cfg(target_os = "linux")]
fn try_out<'a>(directories: impl Iterator<Item = &'a PathBuf>) -> Option<Lack> {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    use rustix::io::Errno;
    let refused = |error: Errno| Lack::Refused(notify::Error::io(error.into()));
    let inotify = match init(CreateFlags::CLOEXEC) {
        Ok(inotify) => inotify,
        Err(Errno::MFILE | Errno::NFILE) => return Some(Lack::Instances),
        Err(error) => return Some(refused(error)),
    };
    for directory in directories {
        match add_watch(&inotify, directory, WatchFlags::CLOSE_WRITE) {
            // What has gone since the plan was made needs no watch.
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::NOSPC) => return Some(Lack::Watches(directory.clone())),
            Err(error) => return Some(refused(error)),
        }
    }
    None
}

#[cfg(not(target_os = "linux"))]
fn try_out<'a>(_: impl Iterator<Item = &'a PathBuf>) -> Option<Lack> {
    None
}
