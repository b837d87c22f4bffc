//! Routines that come and go while the loop runs: what is known of one that came until it has a session, and that one
//! which left while it was deployed has to give its session back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::report::Problem;
use crate::routine::{Edit, RoutineName};

/// A routine that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its name.
    pub routine: RoutineName,
    /// Its file, absolute.
    pub entry: PathBuf,
    /// The same as people read it.
    pub shown: String,
    /// The number of the pattern that the file fits, if it does.
    pub glob: Option<usize>,
}

/// Makes the session of a routine that came, or says why it cannot be had. It is asked again at every edit.
pub type Arrive<S> = Box<dyn Fn(&Guest) -> Result<S, Box<Problem>> + Send>;

/// Who comes.
pub struct Arrivals<S> {
    /// Those that came before the start and have no session.
    pub first: Vec<Guest>,
    /// What makes sessions; where nobody comes, nothing.
    pub arrive: Option<Arrive<S>>,
}

impl<S> Arrivals<S> {
    /// Nobody comes.
    pub fn nobody() -> Self {
        Self {
            first: Vec::new(),
            arrive: None,
        }
    }
}

impl<S> std::fmt::Debug for Arrivals<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Arrivals");
        shown.field("first", &self.first).finish_non_exhaustive()
    }
}

/// Those that came and have no session yet, and those that are about to leave.
pub(super) struct Guests<S> {
    arrive: Option<Arrive<S>>,
    waiting: BTreeMap<RoutineName, Waiting>,
    leaving: BTreeSet<RoutineName>,
}

struct Waiting {
    guest: Guest,
    /// The newest edit. It begins to count when there is a session for it.
    edit: Option<Edit>,
    /// Why there is none, as far as that was told.
    told: Option<Box<Problem>>,
}

impl<S> Guests<S> {
    pub(super) fn new(arrivals: Arrivals<S>) -> Self {
        let Arrivals { first, arrive } = arrivals;
        let mut guests = Self {
            arrive,
            waiting: BTreeMap::new(),
            leaving: BTreeSet::new(),
        };
        first.into_iter().for_each(|guest| guests.came(guest));
        guests
    }

    /// A routine came.
    pub(super) fn came(&mut self, guest: Guest) {
        let waiting = Waiting {
            guest,
            edit: None,
            told: None,
        };
        self.waiting.insert(waiting.guest.routine.clone(), waiting);
    }

    /// Keeps an edit of a routine that has no session; gives back any other.
    pub(super) fn keep(&mut self, edit: Edit) -> Option<Edit> {
        match self.waiting.get_mut(&edit.routine) {
            Some(waiting) => {
                waiting.edit = Some(edit);
                None
            }
            None => Some(edit),
        }
    }

    /// A routine left; whether it had no session anyway.
    pub(super) fn left(&mut self, routine: &RoutineName) -> bool {
        self.waiting.remove(routine).is_some()
    }

    /// A routine that is being deployed left.
    pub(super) fn leaves(&mut self, routine: RoutineName) {
        self.leaving.insert(routine);
    }

    /// Whether a routine that was deployed had left meanwhile.
    pub(super) fn has_left(&mut self, routine: &RoutineName) -> bool {
        self.leaving.remove(routine)
    }

    /// The session of a routine that came and has an edit, or why there is none where that is news.
    pub(super) fn admit(
        &mut self,
        routine: &RoutineName,
    ) -> Option<Result<(Guest, S, Edit), Box<Problem>>> {
        let waiting = self.waiting.get_mut(routine)?;
        let edit = waiting.edit.take()?;
        match self.arrive.as_ref()?(&waiting.guest) {
            Ok(session) => {
                let waiting = self.waiting.remove(routine)?;
                Some(Ok((waiting.guest, session, edit)))
            }
            Err(problem) => {
                let news = waiting.told.as_ref() != Some(&problem);
                waiting.told = Some(problem.clone());
                news.then_some(Err(problem))
            }
        }
    }
}
