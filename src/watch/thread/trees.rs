//! What the watching thread does about trees: it walks them, hears of what happens in them, and says what came of it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::backend::Lack;
use super::super::debounce::{Due, Hint};
use super::super::plan::Plan;
use super::super::tree::Budget;
use super::super::trees::{Settled, user};
use super::Lookout;
use super::look::{Reread, spent};

/// How a walk treats what it finds.
#[derive(Debug)]
pub(super) enum Walk {
    /// All of it is taken as it is, and watched.
    First(Budget),
    /// It is compared with what was told, and watched.
    Full,
    /// It is compared only.
    Look,
}

impl Lookout {
    /// Lists the directories of trees, each after it is watched; what lacks for that.
    pub(super) fn walk_trees(
        &mut self,
        trees: impl IntoIterator<Item = usize>,
        plan: &mut Plan,
        mut walk: Walk,
    ) -> Option<Lack> {
        let mut lack = None;
        for tree in trees {
            let begun = spent();
            let mut left = self.trees.begin(tree, plan);
            while let Some(mut visit) = left.pop() {
                let Some(path) = self.part(tree, &visit.path, plan, &walk, &mut lack) else {
                    continue;
                };
                visit.path = path;
                let first = match &mut walk {
                    Walk::First(budget) => Some(budget),
                    Walk::Full | Walk::Look => None,
                };
                let found = self.trees.visit(tree, visit, first);
                for linked in found.linked {
                    self.part(tree, &linked, plan, &walk, &mut lack);
                }
                left.extend(found.visits);
                self.give_way();
            }
            let cost = spent().saturating_sub(begun);
            self.trees.end(tree, cost, Instant::now());
        }
        lack
    }

    /// Watches a directory of a tree; the path that its events carry.
    fn part(
        &mut self,
        tree: usize,
        path: &Path,
        plan: &mut Plan,
        walk: &Walk,
        lack: &mut Option<Lack>,
    ) -> Option<PathBuf> {
        let (path, id) = plan.part(user(tree), path)?;
        if matches!(walk, Walk::Look) {
            return Some(path);
        }
        {
            // Before the watch, so that no event of it finds nobody who knows its path.
            let mut inbox = self.shared.inbox();
            inbox.trees.insert(path.clone());
            inbox.ways.insert(path.clone());
        }
        if lack.is_none() {
            *lack = self.watches.hold(&path, id).err();
        }
        Some(path)
    }

    /// Takes over what happened in trees.
    pub(super) fn stir(&mut self, stirred: &[(PathBuf, Hint)]) {
        let now = Instant::now();
        let mut walk = false;
        for (path, hint) in stirred {
            walk |= self.trees.stir(path, *hint, now);
        }
        if walk {
            self.look_in_full(Reread::Racy);
        }
    }

    /// Takes over what changed in trees that are due.
    pub(super) fn settle_trees(&mut self, due: &[Due]) {
        for due in due {
            match self.trees.settle(due, Instant::now()) {
                Some(Settled::Told(sighting)) => self.outbox.extend([sighting]),
                Some(Settled::Entries(glob, paths)) => self.found(glob, &paths, Instant::now()),
                None => {}
            }
        }
    }

    /// Looks at those trees of which nothing tells, or at all, as far as that costs little.
    pub(super) fn look_at_trees(&mut self, polled: bool) {
        let trees = 0..self.trees.len();
        let trees = trees.filter(|&tree| self.trees.is_cheap(tree));
        let trees = trees.filter(|&tree| !polled || self.polling.is_polled(user(tree)));
        let trees: Vec<_> = trees.collect();
        if !trees.is_empty() {
            let mut plan = Plan::default();
            self.walk_trees(trees, &mut plan, Walk::Look);
        }
    }
}
