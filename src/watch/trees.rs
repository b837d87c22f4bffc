//! The trees of a watch, which are the inputs of builds and the files that fit patterns of entries: what events mean to them, and when what changed in one of them has come to rest.
//!
//! A tree settles as a whole, as an entry does. A file in it that is being written holds it up, but no longer than the
//! longest wait: the tree is more than that one file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::debounce::{Debounce, Due, Gate, Hint, REST};
use super::plan::Plan;
use super::select::PatternError;
use super::tree::{Budget, Found, Means, Tree, Visit};
use super::{Inputs, Settings};
use crate::config::Glob;
use crate::routine::Sighting;

/// How many paths are told at once.
const MAX_TOLD: usize = 16;

/// What a look at a tree may cost so that it is looked at as often as entries are.
const CHEAP: Duration = Duration::from_millis(10);

/// All trees.
#[derive(Debug)]
pub(super) struct Trees {
    trees: Vec<Kept>,
    debounce: Debounce,
    max_wait: Duration,
}

/// One of them.
#[derive(Debug)]
struct Kept {
    tree: Tree,
    holds: Holds,
    /// Files that are being written, and since when.
    writing: HashMap<PathBuf, Instant>,
    /// How what differs was when a look found it, and since when something differs.
    noted: Option<(u64, Instant)>,
    /// What the last walk has cost.
    cost: Duration,
}

/// What the files of a tree are.
#[derive(Debug, Clone, Copy)]
enum Holds {
    /// The inputs of the build of this number.
    Inputs(usize),
    /// What fits the pattern of this number.
    Entries(usize),
}

/// What came of a tree that has come to rest.
#[derive(Debug)]
pub(super) enum Settled {
    /// What is to be said of it.
    Told(Sighting),
    /// Paths where files that fit the pattern of this number may have come or gone.
    Entries(usize, Vec<PathBuf>),
}

/// The number that a plan knows a tree by; routines count from the other end.
pub(super) fn user(tree: usize) -> usize {
    usize::MAX - tree
}

impl Trees {
    pub(super) fn new(
        inputs: &[Inputs],
        globs: &[Glob],
        settings: &Settings,
    ) -> Result<Self, PatternError> {
        let (ignore, private) = (&settings.ignore, &settings.private);
        let mut trees = Vec::new();
        for inputs in inputs {
            let tree = Tree::new(&inputs.dir, &inputs.patterns, ignore, private)?;
            trees.push(Kept::new(tree, Holds::Inputs(inputs.build)));
        }
        for (number, glob) in globs.iter().enumerate() {
            let tree = Tree::of_entries(glob, ignore, private)?;
            trees.push(Kept::new(tree, Holds::Entries(number)));
        }
        Ok(Self {
            debounce: Debounce::new(trees.len(), settings.debounce, settings.max_wait),
            max_wait: settings.max_wait,
            trees,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.trees.len()
    }

    /// Whether a look at it costs so little that it can be looked at often.
    pub(super) fn is_cheap(&self, tree: usize) -> bool {
        let kept = self.trees.get(tree);
        kept.is_some_and(|kept| kept.cost <= CHEAP)
    }

    /// The directories to begin a walk at; everything that it does not visit is gone.
    pub(super) fn begin(&mut self, tree: usize, plan: &mut Plan) -> Vec<Visit> {
        let Some(kept) = self.trees.get_mut(tree) else {
            return Vec::new();
        };
        kept.tree.begin();
        kept.tree.tops(user(tree), plan)
    }

    /// Lists a directory.
    pub(super) fn visit(&mut self, tree: usize, visit: Visit, first: Option<&mut Budget>) -> Found {
        let kept = self.trees.get_mut(tree);
        kept.map_or_else(Found::default, |kept| kept.tree.visit(visit, first))
    }

    /// Ends a walk that has cost this much. What it found to differ has to rest first.
    pub(super) fn end(&mut self, tree: usize, cost: Duration, now: Instant) {
        let Some(kept) = self.trees.get_mut(tree) else {
            return;
        };
        kept.cost = cost;
        kept.tree.end();
        if !kept.tree.rests() && self.debounce.hint(tree, Hint::Found, now) {
            kept.noted = Some((kept.tree.print(), now));
        }
    }

    /// Lets a plan hold the directories that are known, and the ways to them.
    pub(super) fn keep(&self, plan: &mut Plan) {
        for (number, kept) in self.trees.iter().enumerate() {
            kept.tree.tops(user(number), plan);
            for place in kept.tree.places() {
                plan.part(user(number), place);
            }
        }
    }

    /// Takes over what happened to a path; whether the trees have to be walked because of it.
    pub(super) fn stir(&mut self, path: &Path, hint: Hint, now: Instant) -> bool {
        let mut walk = false;
        for (number, kept) in self.trees.iter_mut().enumerate() {
            match kept.tree.stir(path) {
                Means::Nothing => {}
                Means::Walk => walk |= hint != Hint::Touched,
                Means::File => {
                    let hint = kept.hint(path, hint, self.max_wait, now);
                    self.debounce.hint(number, hint, now);
                }
            }
        }
        walk
    }

    /// The trees with a change that is due.
    pub(super) fn due(&self, now: Instant) -> Vec<Due> {
        self.debounce.due(now)
    }

    /// When [`Trees::due`] has something next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.debounce.next_deadline()
    }

    /// The numbers, as a plan knows them, of those that have not settled.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = usize> {
        self.debounce.unsettled().map(user)
    }

    /// Ends a change, if it has come to rest.
    pub(super) fn settle(&mut self, due: &Due, now: Instant) -> Option<Settled> {
        let kept = self.trees.get_mut(due.routine)?;
        if due.gate == Gate::Unseen && !kept.rests(self.max_wait, now) {
            self.debounce.hint(due.routine, Hint::Missed, now);
            return None;
        }
        let mut difference = kept.tree.difference();
        self.debounce.settle(due.routine, due.ticket)?;
        kept.writing.clear();
        kept.noted = None;
        let paths = std::mem::take(&mut difference.paths);
        kept.tree.tell(difference);
        if paths.is_empty() {
            return None;
        }
        Some(match kept.holds {
            Holds::Inputs(build) => Settled::Told(Sighting::Inputs {
                build,
                paths: paths.into_iter().take(MAX_TOLD).collect(),
            }),
            Holds::Entries(glob) => {
                let paths = paths.iter().map(|path| kept.tree.absolute(path));
                Settled::Entries(glob, paths.collect())
            }
        })
    }
}

impl Kept {
    fn new(tree: Tree, holds: Holds) -> Self {
        Self {
            tree,
            holds,
            writing: HashMap::new(),
            noted: None,
            cost: Duration::ZERO,
        }
    }

    /// What an event of a file means to the tree as a whole.
    fn hint(&mut self, path: &Path, hint: Hint, max_wait: Duration, now: Instant) -> Hint {
        match hint {
            Hint::Written => {
                self.writing.entry(path.to_path_buf()).or_insert(now);
            }
            Hint::Closed | Hint::Arrived | Hint::Removed => {
                self.writing.remove(path);
            }
            _ => {}
        }
        let mut since = self.writing.values();
        if since.any(|&since| now.saturating_duration_since(since) < max_wait) {
            Hint::Written
        } else if hint == Hint::Touched {
            Hint::Touched
        } else {
            Hint::Closed
        }
    }

    /// Whether what differs is as it was a while before, or has differed for so long that it does not matter.
    fn rests(&mut self, max_wait: Duration, now: Instant) -> bool {
        let print = self.tree.print();
        let (before, since) = self.noted.unwrap_or((print, now));
        self.noted = Some((print, since));
        before == print || now.saturating_duration_since(since) > max_wait + REST
    }
}
