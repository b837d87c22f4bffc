//! How changes of a place are noticed: by events, by looking, or in both ways; and what is said where events run out.
//!
//! [`choose`] decides and touches nothing; the rest asks the system what lies where, and what its limits are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Noticing, Target, WatchError};
use crate::config::Backend;
use crate::routine::Sighting;

/// File systems on which somebody else can change a file without an event here, by the numbers that the kernel gives
/// them. Of an overlay that is what changes beneath it.
const SILENT: [u32; 9] = [
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB 2 and later
    0x0102_1997, // 9p
    0x6573_5546, // FUSE
    0x794C_7630, // overlay
    0x00C3_6400, // Ceph
    0x786F_4256, // shared folders of VirtualBox
];

/// The settings of the system that bound watches. The second one is that of a user namespace and can be the lower one.
pub(super) const WATCHES: [&str; 2] = ["fs.inotify.max_user_watches", "user.max_inotify_watches"];

/// Those that bound instances.
pub(super) const INSTANCES: [&str; 2] = [
    "fs.inotify.max_user_instances",
    "user.max_inotify_instances",
];

/// What the changes of a place are noticed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// Events, and the rare looks that back them up.
    Events,
    /// Frequent looks.
    Looks,
    /// Both.
    Both,
}

impl Means {
    /// As people read it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Events => "inotify",
            Self::Looks => "poll",
            Self::Both => "inotify and poll",
        }
    }
}

/// Why some directory has no watch.
#[derive(Debug)]
pub(super) enum Lack {
    /// The user's watches are used up; the first directory without one.
    Watches(PathBuf),
    /// The user's instances, or this process's files, are used up.
    Instances,
    /// This one cannot be watched; others can.
    Directory(PathBuf, notify::Error),
    /// Watching failed again and again, and is tried again later.
    Failing,
    /// The system refuses to let this process watch at all.
    Refused(notify::Error),
}

impl From<Lack> for WatchError {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::Watches(path) => Self::Watches { path },
            Lack::Instances => Self::Instances,
            Lack::Failing => Self::Ended,
            Lack::Directory(_, error) | Lack::Refused(error) => Self::Notify(error),
        }
    }
}

/// What is right for a place on a file system of this number.
pub(super) fn choose(setting: Backend, file_system: Option<u32>) -> Means {
    match setting {
        Backend::Poll => Means::Looks,
        Backend::Native => Means::Events,
        Backend::Auto if file_system.is_some_and(|number| SILENT.contains(&number)) => Means::Both,
        Backend::Auto => Means::Events,
    }
}

/// What is right for a path, which may still have to be made.
pub(super) fn of(path: &Path, setting: Backend) -> Means {
    choose(setting, path.ancestors().find_map(file_system))
}

/// The names of file systems by the numbers that the kernel gives them: those that are silent, and the usual ones.
const NAMES: [(u32, &str); 16] = [
    (0x6969, "nfs"),
    (0x517B, "smb"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse"),
    (0x794C_7630, "overlay"),
    (0x00C3_6400, "ceph"),
    (0x786F_4256, "vboxsf"),
    (0xEF53, "ext4"),
    (0x9123_683E, "btrfs"),
    (0x5846_5342, "xfs"),
    (0x0102_1994, "tmpfs"),
    (0x2FC1_2FC1, "zfs"),
    (0xF2F5_2010, "f2fs"),
    (0x482B, "hfsplus"),
];

/// The name of the file system that a path is on, or will be on.
pub(super) fn file_system_name(path: &Path) -> String {
    let Some(number) = path.ancestors().find_map(file_system) else {
        return "unknown".into();
    };
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("{number:#x}"), |(_, name)| (*name).to_owned())
}

/// The routines, and trees by their numbers in plans, that are polled, and what has been told of why.
#[derive(Debug)]
pub(super) struct Polling {
    pub(super) setting: Backend,
    pub(super) interval: Duration,
    pub(super) routines: HashSet<usize>,
    /// Those with a directory that has no watch.
    unwatched: HashSet<usize>,
    /// Those on a file system that is known to be silent.
    silent: HashSet<usize>,
    /// Those with a change that no event told of.
    unheard: HashSet<usize>,
    /// What watches lack, as it was told.
    lacking: Option<String>,
    /// Directories that cannot be watched, as far as that was told.
    refused: HashSet<PathBuf>,
}

impl Polling {
    pub(super) fn new(setting: Backend, interval: Duration) -> Self {
        Self {
            setting,
            interval,
            routines: HashSet::new(),
            unwatched: HashSet::new(),
            silent: HashSet::new(),
            unheard: HashSet::new(),
            lacking: None,
            refused: HashSet::new(),
        }
    }

    /// Takes over that the watches of these routines are incomplete and that these others are on a silent file system,
    /// and says it where that is news: once when watches begin to lack, once for each directory that cannot be watched,
    /// and once when nothing lacks any more.
    pub(super) fn update(
        &mut self,
        unwatched: HashSet<usize>,
        silent: HashSet<usize>,
        lack: Option<(&Lack, usize)>,
        targets: &[Target],
    ) -> Option<Sighting> {
        let news = match lack {
            Some((Lack::Directory(path, _), _)) => self.refused.insert(path.clone()),
            Some(_) => self.lacking.is_none(),
            None => false,
        };
        let told = match lack {
            Some((lack, needed)) if news => {
                let (what, help) = told(lack, needed);
                let polled = names(&unwatched, targets);
                let interval = humantime::format_duration(self.interval);
                let instead = match self.setting {
                    Backend::Native => format!("{polled} only looked at rarely"),
                    _ => format!("{polled} looked at every {interval} instead"),
                };
                self.lacking = Some(what.clone());
                Some(Sighting::Polling {
                    what: format!("{what}; {instead}"),
                    help,
                })
            }
            None if self.lacking.take().is_some() => {
                self.refused.clear();
                Some(Sighting::Events(
                    "file events tell of all changes again".into(),
                ))
            }
            _ => None,
        };
        (self.unwatched, self.silent) = (unwatched, silent);
        self.routines = match self.setting {
            Backend::Poll => (0..targets.len()).collect(),
            Backend::Native => HashSet::new(),
            Backend::Auto => &(&self.unwatched | &self.silent) | &self.unheard,
        };
        told
    }

    /// Whether a routine or tree is polled.
    pub(super) fn is_polled(&self, user: usize) -> bool {
        self.setting == Backend::Poll || self.routines.contains(&user)
    }

    /// Whether anything is.
    pub(super) fn any(&self) -> bool {
        self.setting == Backend::Poll || !self.routines.is_empty()
    }

    /// Takes over that no event told of a change of this routine's entry; what is to be said of that, if it is news.
    /// From now on everything with the same root is looked at as well.
    pub(super) fn hear_nothing_of(
        &mut self,
        routine: usize,
        targets: &[Target],
    ) -> Option<Sighting> {
        if self.setting != Backend::Auto || self.routines.contains(&routine) {
            return None;
        }
        let target = targets.get(routine)?;
        let beside = targets.iter().enumerate();
        let beside = beside.filter(|(_, other)| other.root == target.root);
        self.unheard.extend(beside.map(|(at, _)| at));
        self.routines.extend(&self.unheard);
        let interval = humantime::format_duration(self.interval);
        Some(Sighting::Unheard {
            routine: target.routine.clone(),
            what: format!(
                "no file event told that `{}` changed; `{}` is looked at every {interval} as well from now on",
                target.entry.display(),
                target.root.display()
            ),
        })
    }

    /// How changes of a routine are noticed.
    pub(super) fn noticing(&self, routine: usize) -> Noticing {
        let unwatched = self.unwatched.contains(&routine);
        let polled = self.routines.contains(&routine);
        let by = match self.setting {
            Backend::Poll => Means::Looks.name(),
            Backend::Native if unwatched => "rare looks",
            Backend::Auto if unwatched => Means::Looks.name(),
            Backend::Auto if polled => Means::Both.name(),
            Backend::Auto | Backend::Native => Means::Events.name(),
        };
        let why = match self.setting {
            Backend::Poll => Some("the configuration says so".into()),
            _ if unwatched => self.lacking.clone(),
            Backend::Auto if self.silent.contains(&routine) => {
                Some("its file system does not tell of every change".into())
            }
            Backend::Auto if polled => Some("a change came without a file event".into()),
            Backend::Auto | Backend::Native => None,
        };
        Noticing { by, why }
    }

    /// What all changes together are noticed by.
    pub(super) fn means(&self, any_watch: bool) -> Means {
        match (any_watch, self.routines.is_empty()) {
            (_, true) => Means::Events,
            (true, false) => Means::Both,
            (false, false) => Means::Looks,
        }
    }
}

/// What is wrong, and what helps.
pub(super) fn told(lack: &Lack, needed: usize) -> (String, String) {
    match lack {
        Lack::Watches(_) => {
            let (key, most) = limit(WATCHES);
            let raised = needed.saturating_mul(2).max(524_288);
            (
                format!(
                    "no inotify watch is left: er-dev needs {needed}, and {key} is {most} for all programs of this user"
                ),
                format!("raise the limit with `sudo sysctl {key}={raised}`"),
            )
        }
        Lack::Instances => {
            let (key, most) = limit(INSTANCES);
            (
                format!(
                    "no inotify instance is left, or no file descriptor: er-dev needs 1, and {key} is {most} for all programs of this user"
                ),
                format!("raise the limits with `sudo sysctl {key}=1024` and `ulimit -n 1024`"),
            )
        }
        Lack::Directory(path, error) => (
            format!("`{}` cannot be watched: {error}", path.display()),
            "let this user read the directory".into(),
        ),
        Lack::Failing => (
            "file events fail again and again".into(),
            "nothing has to be done: er-dev goes on trying".into(),
        ),
        Lack::Refused(error) => (
            format!("there are no file events: {error}"),
            "set `backend = \"poll\"` if that is meant to be so".into(),
        ),
    }
}

fn names(routines: &HashSet<usize>, targets: &[Target]) -> String {
    let first = routines.iter().min().and_then(|&first| targets.get(first));
    match (first, routines.len()) {
        (None, 0) => "nothing is".into(),
        (None, _) => "the inputs of builds and the files that fit patterns are".into(),
        (Some(first), 1) => format!("`{}` is", first.routine),
        (Some(first), more) => format!("`{}` and {} more are", first.routine, more - 1),
    }
}

/// The lower one of two settings of the system, with its name.
pub(super) fn limit(keys: [&'static str; 2]) -> (&'static str, String) {
    let read = |key: &'static str| {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        let text = std::fs::read_to_string(path).ok()?;
        Some((key, text.trim().parse::<u64>().ok()?))
    };
    let lowest = keys.into_iter().filter_map(read).min_by_key(|&(_, n)| n);
    match lowest {
        Some((key, most)) => (key, most.to_string()),
        None => (keys[0], "unknown".into()),
    }
}

/// The number of the file system that a path is on.
#[cfg(target_os = "linux")]
fn file_system(path: &Path) -> Option<u32> {
    let number = i128::from(rustix::fs::statfs(path).ok()?.f_type);
    u32::try_from(number & 0xFFFF_FFFF).ok()
}

#[cfg(not(target_os = "linux"))]
fn file_system(_: &Path) -> Option<u32> {
    None
}

/// Whether another file system, or another part of one, is mounted at a path.
#[cfg(target_os = "linux")]
pub(super) fn is_mount(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_mount(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> Target {
        Target {
            routine: crate::routine::RoutineName::new(name).unwrap(),
            entry: "/p/a.js".into(),
            root: "/p".into(),
            check: false,
            follow: false,
            glob: None,
        }
    }

    #[test]
    fn only_auto_asks_which_file_system_it_is() {
        let (ext4, overlay) = (Some(0xEF53), Some(0x794C_7630));
        let cases = [
            (Backend::Auto, ext4, Means::Events),
            (Backend::Auto, overlay, Means::Both),
            (Backend::Auto, Some(0xFF53_4D42), Means::Both),
            (Backend::Auto, None, Means::Events),
            (Backend::Native, overlay, Means::Events),
            (Backend::Poll, ext4, Means::Looks),
        ];
        for (setting, file_system, means) in cases {
            assert_eq!(
                choose(setting, file_system),
                means,
                "{setting:?} {file_system:?}"
            );
        }
    }

    #[test]
    fn a_path_that_is_still_to_be_made_is_judged_by_what_it_will_be_in() {
        assert_eq!(
            of(Path::new("/proc/no/such/thing"), Backend::Auto),
            Means::Events
        );
        assert_eq!(file_system_name(Path::new("/proc/no")), "0x9fa0");
        assert!(is_mount(Path::new("/proc")));
        assert!(!is_mount(Path::new("/proc/self")));
    }

    #[test]
    fn running_out_is_told_once_with_the_numbers_and_so_is_its_end() {
        let mut polling = Polling::new(Backend::Auto, Duration::from_millis(500));
        let targets = ["a", "b", "c"].map(target);
        let lack = Lack::Watches("/p".into());
        let some = || HashSet::from([1, 2]);
        let told = polling.update(some(), HashSet::new(), Some((&lack, 77)), &targets);
        let Some(Sighting::Polling { what, help }) = told else {
            panic!("{told:?}")
        };
        assert!(what.contains("needs 77"), "{what}");
        assert!(
            what.contains("`b` and 1 more are looked at every 500ms"),
            "{what}"
        );
        assert!(help.contains("sudo sysctl "), "{help}");
        let again = polling.update(some(), HashSet::new(), Some((&lack, 78)), &targets);
        assert_eq!(again, None);
        assert_eq!(polling.routines, some());
        assert_eq!(polling.means(true).name(), "inotify and poll");
        let by = |polling: &Polling, routine| polling.noticing(routine);
        assert_eq!(by(&polling, 1).by, "poll");
        assert!(by(&polling, 1).why.unwrap().contains("needs 77"));
        assert_eq!((by(&polling, 0).by, by(&polling, 0).why), ("inotify", None));
        let over = polling.update(HashSet::new(), HashSet::new(), None, &targets);
        assert!(matches!(over, Some(Sighting::Events(_))));
        assert_eq!(polling.means(true), Means::Events);
        assert_eq!(by(&polling, 1).by, "inotify");
    }

    #[test]
    fn without_polling_what_is_not_watched_is_told_with_its_end_as_well() {
        let mut polling = Polling::new(Backend::Native, Duration::from_millis(500));
        let targets = ["a", "b"].map(target);
        let one = || HashSet::from([1]);
        let lack = Lack::Failing;
        let told = polling.update(one(), HashSet::new(), Some((&lack, 3)), &targets);
        let Some(Sighting::Polling { what, .. }) = told else {
            panic!("{told:?}")
        };
        assert!(what.ends_with("; `b` is only looked at rarely"), "{what}");
        assert_eq!(polling.noticing(1).by, "rare looks");
        assert_eq!(polling.routines, HashSet::new());
        let over = polling.update(HashSet::new(), HashSet::new(), None, &targets);
        assert!(matches!(over, Some(Sighting::Events(_))), "{over:?}");
    }

    #[test]
    fn each_directory_that_cannot_be_watched_is_told_once() {
        let mut polling = Polling::new(Backend::Auto, Duration::from_millis(500));
        let targets = ["a", "b"].map(target);
        let mut told = |path: &str| {
            let lack = Lack::Directory(path.into(), notify::Error::generic("permission denied"));
            let told = polling.update(
                HashSet::from([1]),
                HashSet::new(),
                Some((&lack, 3)),
                &targets,
            );
            told.map(|told| format!("{told:?}"))
        };
        let first = told("/p/x").unwrap();
        assert!(
            first.contains("`/p/x` cannot be watched: permission denied; `b` is looked at"),
            "{first}"
        );
        assert_eq!(told("/p/x"), None);
        assert!(told("/p/y").is_some());
    }

    #[test]
    fn a_change_without_an_event_lets_all_of_its_root_be_polled_and_is_told_once() {
        let mut polling = Polling::new(Backend::Auto, Duration::from_millis(500));
        let mut targets = ["a", "b", "c"].map(target);
        targets[2].root = "/q".into();
        let told = polling.hear_nothing_of(1, &targets);
        assert!(
            matches!(&told, Some(Sighting::Unheard { routine, .. }) if routine.as_str() == "b"),
            "{told:?}"
        );
        assert_eq!(polling.hear_nothing_of(0, &targets), None);
        // Later plans change nothing about that.
        polling.update(HashSet::new(), HashSet::new(), None, &targets);
        assert_eq!(polling.routines, HashSet::from([0, 1]));
        assert_eq!(polling.noticing(0).by, "inotify and poll");
        for setting in [Backend::Native, Backend::Poll] {
            let mut polling = Polling::new(setting, Duration::from_millis(500));
            assert_eq!(polling.hear_nothing_of(0, &targets), None);
        }
    }
}
