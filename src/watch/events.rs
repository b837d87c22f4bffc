//! notify's events become hints.
//!
//! notify calls from a thread of its own that must not be held up. So the callback only marks, under a short lock, what
//! its event is about: a pending change of a routine, a directory that came or went, or that something was missed. All
//! of that is bounded by the number of routines and of watched paths, whatever storm of events comes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventHandler, EventKind};

use super::Noticing;
use super::debounce::{Debounce, Hint};
use crate::routine::RoutineName;

/// How many events in trees are remembered until the thread hears of them. When there are more, something was missed.
const MAX_STIRRED: usize = 4_096;

/// How many errors in a row end the watches, to be made anew.
const MAX_ERRORS: u32 = 5;

/// How long a failing thread of notify's waits for its watcher to be dropped. After that it ends all the same.
const LET_GO: Duration = Duration::from_secs(1);

/// What the watching thread shares with notify's callback and with the handle that stops it.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

/// What has been heard and not yet been dealt with.
#[derive(Debug)]
pub(super) struct Inbox {
    /// The changes of entries.
    pub(super) debounce: Debounce,
    /// The routines with a hint since the thread last looked.
    pub(super) heard: HashSet<usize>,
    /// Where entries are, with the numbers of their routines.
    pub(super) entries: HashMap<PathBuf, Vec<usize>>,
    /// The directories of trees.
    pub(super) trees: HashSet<PathBuf>,
    /// What happened in them.
    pub(super) stirred: Vec<(PathBuf, Hint)>,
    /// Where directories matter.
    pub(super) ways: HashSet<PathBuf>,
    /// Those of `ways` where a directory came or went.
    pub(super) moved: HashSet<PathBuf>,
    /// Those of `ways` where what was there went, and how.
    pub(super) gone: HashMap<PathBuf, Gone>,
    /// Events were lost, nobody knows which.
    pub(super) missed: bool,
    /// Syncs that were asked for and not begun.
    pub(super) syncs: Vec<u64>,
    /// How changes of each routine are noticed at present.
    pub(super) noticing: BTreeMap<RoutineName, Noticing>,
    /// The marker whose event is waited for.
    pub(super) awaited: Option<PathBuf>,
    /// Whether there is any more to come.
    pub(super) life: Life,
}

/// How something left its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// It was deleted.
    Deleted,
    /// It has another name now.
    Renamed,
}

/// Whether watching goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It does.
    Running,
    /// A stop was asked for.
    Stopping,
    /// notify's thread fails again and again, and ends as soon as its watcher has been dropped.
    Failing,
    /// notify's thread is gone, and with it the events.
    Ended,
}

/// The callback. notify drops it when its thread ends, in whatever way.
#[derive(Debug)]
pub(super) struct Ear {
    shared: Arc<Shared>,
    /// Errors since the last event.
    errors: u32,
    /// The watcher that it belongs to has been dropped, so that its own end says nothing.
    dropped: bool,
}

impl Shared {
    pub(super) fn new(debounce: Debounce) -> Arc<Self> {
        Arc::new(Self {
            inbox: Mutex::new(Inbox {
                debounce,
                heard: HashSet::new(),
                entries: HashMap::new(),
                trees: HashSet::new(),
                stirred: Vec::new(),
                ways: HashSet::new(),
                moved: HashSet::new(),
                gone: HashMap::new(),
                missed: false,
                syncs: Vec::new(),
                noticing: BTreeMap::new(),
                awaited: None,
                life: Life::Running,
            }),
            wake: Condvar::new(),
        })
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Nothing in the inbox can be half done, so what a panicking thread left behind is good.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the inbox away until something is heard or the time has come.
    pub(super) fn wait<'a>(
        &self,
        inbox: MutexGuard<'a, Inbox>,
        until: Instant,
    ) -> MutexGuard<'a, Inbox> {
        let pause = until.saturating_duration_since(Instant::now());
        let waited = self.wake.wait_timeout(inbox, pause);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Lets the thread look at the inbox.
    pub(super) fn wake(&self) {
        self.wake.notify_all();
    }

    /// Asks the thread to tell of everything up to now.
    pub(super) fn sync(&self, number: u64) {
        self.inbox().syncs.push(number);
        self.wake();
    }

    /// Asks for the watcher to be dropped and waits a moment for that; whether it was, or nobody cares any more.
    fn let_go(&self) -> bool {
        let mut inbox = self.inbox();
        if inbox.life == Life::Running {
            inbox.life = Life::Failing;
        }
        self.wake();
        let until = Instant::now() + LET_GO;
        while inbox.life == Life::Failing && Instant::now() < until {
            inbox = self.wait(inbox, until);
        }
        inbox.life != Life::Failing
    }

    /// Asks the thread to end.
    pub(super) fn stop(&self) {
        self.inbox().life = Life::Stopping;
        self.wake();
    }
}

impl Inbox {
    /// Notes what an event is about; false if it is about nothing that matters.
    fn hear(&mut self, event: notify::Result<Event>, now: Instant) -> bool {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::debug!("file events: {error}");
                self.missed = true;
                return true;
            }
        };
        // An overflow of the system's queue comes without a path.
        if event.need_rescan() {
            self.missed = true;
            return true;
        }
        let Some(hint) = hint(event.kind) else {
            return false;
        };
        let mut matters = false;
        for path in &event.paths {
            if self.awaited.as_ref() == Some(path) {
                self.awaited = None;
                matters = true;
            }
            for &routine in self.entries.get(path).into_iter().flatten() {
                if self.debounce.hint(routine, hint, now) {
                    self.heard.insert(routine);
                    matters = true;
                }
            }
            let comes_or_goes = matches!(hint, Hint::Created | Hint::Arrived | Hint::Removed);
            if comes_or_goes && self.ways.contains(path) {
                self.moved.insert(path.clone());
                match gone(event.kind) {
                    Some(gone) => self.gone.insert(path.clone(), gone),
                    None => self.gone.remove(path),
                };
                matters = true;
            }
            matters |= hint != Hint::Opened && self.stir(path, hint);
        }
        matters
    }

    /// Notes what happened in a tree; false if it was in none, or is noted already.
    fn stir(&mut self, path: &Path, hint: Hint) -> bool {
        let within = path
            .parent()
            .is_some_and(|parent| self.trees.contains(parent));
        let last = self.stirred.last();
        if !within || last.is_some_and(|(last, before)| last == path && *before == hint) {
            return false;
        }
        if self.stirred.len() < MAX_STIRRED {
            self.stirred.push((path.to_path_buf(), hint));
        } else {
            self.missed = true;
        }
        true
    }
}

impl Ear {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            errors: 0,
            dropped: false,
        }
    }
}

impl EventHandler for Ear {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        self.errors = if event.is_err() { self.errors + 1 } else { 0 };
        let matters = self.shared.inbox().hear(event, Instant::now());
        if matters {
            self.shared.wake();
        }
        if self.errors >= MAX_ERRORS {
            // notify reads on after an error, without end if it stays, and this is the only way out of that. Its thread
            // takes its watches along. A watcher whose thread is gone panics when it is dropped, so it goes first.
            self.dropped = self.shared.let_go();
            std::panic::resume_unwind(Box::new("file events fail again and again"));
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut inbox = self.shared.inbox();
        if matches!(inbox.life, Life::Running | Life::Failing) && !self.dropped {
            inbox.life = Life::Ended;
        }
        drop(inbox);
        self.shared.wake();
    }
}

/// What an event says about the file it names; `None` for what changes nothing.
fn hint(kind: EventKind) -> Option<Hint> {
    match kind {
        EventKind::Create(_) => Some(Hint::Created),
        EventKind::Remove(_) => Some(Hint::Removed),
        // Both ends of a rename have had an event of their own before this one.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Some(Hint::Removed),
        EventKind::Modify(ModifyKind::Name(_)) => Some(Hint::Arrived),
        EventKind::Modify(ModifyKind::Metadata(_)) => Some(Hint::Touched),
        EventKind::Modify(_) => Some(Hint::Written),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::Closed),
        EventKind::Access(AccessKind::Open(_)) => Some(Hint::Opened),
        EventKind::Access(_) | EventKind::Any | EventKind::Other => None,
    }
}

/// How what an event names went, if it did.
fn gone(kind: EventKind) -> Option<Gone> {
    match kind {
        EventKind::Remove(_) => Some(Gone::Deleted),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Some(Gone::Renamed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use notify::event::{CreateKind, DataChange, Flag, MetadataKind, RemoveKind};

    use super::*;

    fn inbox() -> Inbox {
        let debounce = Debounce::new(1, Duration::from_millis(100), Duration::from_secs(2));
        let shared = Shared::new(debounce);
        let mut inbox = Arc::into_inner(shared).unwrap().inbox.into_inner().unwrap();
        inbox.entries.insert("/p/index.js".into(), vec![0]);
        inbox.ways.insert("/p".into());
        inbox
    }

    fn event(kind: EventKind, path: &str) -> notify::Result<Event> {
        Ok(Event::new(kind).add_path(path.into()))
    }

    #[test]
    fn events_of_other_files_and_mere_reading_start_nothing() {
        let mut inbox = inbox();
        let now = Instant::now();
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        inbox.hear(event(written, "/p/other.js"), now);
        for access in [
            AccessKind::Open(AccessMode::Any),
            AccessKind::Close(AccessMode::Read),
            AccessKind::Read,
        ] {
            inbox.hear(event(EventKind::Access(access), "/p/index.js"), now);
        }
        assert_eq!(inbox.debounce.next_deadline(), None);
        inbox.hear(event(written, "/p/index.js"), now);
        assert!(inbox.debounce.next_deadline().is_some());
    }

    #[test]
    fn a02_an_overflow_without_a_path_or_an_error_means_that_everything_may_have_changed() {
        let mut overflown = inbox();
        let event = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(event.paths.is_empty());
        assert!(overflown.hear(Ok(event), Instant::now()));
        assert!(overflown.missed);

        let mut failed = inbox();
        failed.hear(Err(notify::Error::generic("lost")), Instant::now());
        assert!(failed.missed);
    }

    #[test]
    fn a_directory_that_comes_or_goes_is_noted_and_one_that_is_touched_is_not() {
        let mut inbox = inbox();
        let now = Instant::now();
        let touched = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        inbox.hear(event(touched, "/p"), now);
        assert!(inbox.moved.is_empty());
        for kind in [
            EventKind::Create(CreateKind::Folder),
            EventKind::Remove(RemoveKind::Folder),
            EventKind::Modify(ModifyKind::Name(RenameMode::From)),
            EventKind::Modify(ModifyKind::Name(RenameMode::To)),
        ] {
            inbox.hear(event(kind, "/p"), now);
            assert_eq!(inbox.moved.drain().count(), 1, "{kind:?}");
        }
    }

    #[test]
    fn how_a_directory_went_is_known_until_one_comes_again() {
        let mut inbox = inbox();
        let now = Instant::now();
        let name = |mode| EventKind::Modify(ModifyKind::Name(mode));
        let cases = [
            (EventKind::Remove(RemoveKind::Folder), Some(Gone::Deleted)),
            (name(RenameMode::From), Some(Gone::Renamed)),
            (name(RenameMode::To), None),
            (EventKind::Remove(RemoveKind::Other), Some(Gone::Deleted)),
            (EventKind::Create(CreateKind::Folder), None),
        ];
        for (kind, gone) in cases {
            inbox.hear(event(kind, "/p"), now);
            assert_eq!(inbox.gone.get(Path::new("/p")).copied(), gone, "{kind:?}");
        }
    }

    #[test]
    fn a38_errors_that_do_not_end_end_the_thread_they_come_from_and_an_event_between_them_saves_it()
    {
        let debounce = Debounce::new(1, Duration::from_millis(100), Duration::from_secs(2));
        let shared = Shared::new(debounce);
        let mut ear = Ear::new(&shared);
        let other = || event(EventKind::Remove(RemoveKind::File), "/q");
        let endless = std::thread::spawn(move || {
            for _ in 0..MAX_ERRORS - 1 {
                ear.handle_event(Err(notify::Error::generic("once")));
            }
            ear.handle_event(other());
            for error in 0.. {
                assert!(error < MAX_ERRORS, "it goes on");
                ear.handle_event(Err(notify::Error::generic("again")));
            }
        });
        let ended = endless.join().unwrap_err();
        let why = ended.downcast_ref::<&str>();
        assert_eq!(why, Some(&"file events fail again and again"));
        assert_eq!(shared.inbox().life, Life::Ended);
        assert!(shared.inbox().missed);
    }

    #[test]
    fn one_rename_is_one_save() {
        let mut inbox = inbox();
        let now = Instant::now();
        let name = |mode| EventKind::Modify(ModifyKind::Name(mode));
        inbox.hear(event(name(RenameMode::From), "/p/new"), now);
        inbox.hear(event(name(RenameMode::To), "/p/index.js"), now);
        let both = Event::new(name(RenameMode::Both)).add_path("/p/new".into());
        inbox.hear(Ok(both.add_path("/p/index.js".into())), now);
        let due = inbox.debounce.due(now + Duration::from_millis(100));
        assert_eq!(inbox.debounce.settle(0, due[0].ticket), Some(1));
    }
}
