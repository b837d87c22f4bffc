//! What the watching thread does about files that fit patterns: they become routines, and cease to be some.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::Target;
use super::super::claims::{Turn, net, unnamed};
use super::super::debounce::Hint;
use super::super::known::Known;
use super::super::snapshot;
use super::Lookout;
use super::trees::Walk;
use crate::routine::{Edit, Sighting};

impl Lookout {
    /// Lets every routine that is known from the start claim its name.
    pub(super) fn claim_first(&mut self) {
        for number in 0..self.targets.len() {
            let Some(target) = self.targets.get(number) else {
                continue;
            };
            let present = self.routines.get(number).is_some_and(|it| it.is_there());
            let shown = self.shown(target);
            let turns = self.claims.add(
                target.routine.clone(),
                target.entry.clone(),
                shown,
                target.glob,
                present,
            );
            for turn in turns {
                match turn {
                    // Nobody has to be told of what was handed in.
                    Turn::Came(_) => {}
                    turn => self.tell_turn(turn),
                }
            }
        }
    }

    /// Looks whether files have come to paths that fit a pattern, and makes routines of those that have.
    pub(super) fn found(&mut self, glob: usize, paths: &[PathBuf], settled: Instant) {
        self.unnamed.retain(|path| path.is_file());
        let first = self.targets.len();
        for path in paths {
            if self.claims.knows(glob, path) || !path.is_file() {
                continue;
            }
            let Some(pattern) = self.globs.get(glob) else {
                continue;
            };
            match pattern.routine(path) {
                Ok(routine) => {
                    let target = Target::of(&routine);
                    self.roots.add(&target);
                    self.shared.inbox().debounce.grow();
                    self.targets.push(target);
                }
                Err(error) => {
                    let shown = path.strip_prefix(pattern.dir()).unwrap_or(path);
                    let (what, help) = unnamed(&shown.to_string_lossy(), &error);
                    if self.unnamed.insert(path.clone()) {
                        self.outbox.extend([Sighting::Unfit { what, help }]);
                    }
                }
            }
        }
        let new = first..self.targets.len();
        if new.is_empty() {
            return;
        }
        // First it is heard of what happens to them, then they are read.
        self.arm(Walk::Full);
        self.turn(new.clone());
        let mut turns = Vec::new();
        for number in new {
            let Some(target) = self.targets.get(number) else {
                continue;
            };
            let known = Known::first(target);
            let present = known.is_there();
            let shown = self.shown(target);
            let (routine, entry) = (target.routine.clone(), target.entry.clone());
            self.routines.push(known);
            turns.extend(self.claims.add(routine, entry, shown, Some(glob), present));
        }
        self.tell_turns(net(turns), settled);
    }

    /// Takes over whether the file of a routine is there; whether it has just become that of its name.
    pub(super) fn set_present(&mut self, routine: usize, present: bool, settled: Instant) -> bool {
        let turns = self.claims.set_present(routine, present);
        let came = turns.contains(&Turn::Came(routine));
        let others = turns
            .into_iter()
            .filter(|turn| *turn != Turn::Came(routine));
        self.tell_turns(others.collect(), settled);
        if came {
            self.tell_turn(Turn::Came(routine));
        }
        came
    }

    /// Says what became of claims. Of a routine that came the first edit follows.
    fn tell_turns(&mut self, turns: Vec<Turn>, settled: Instant) {
        for turn in turns {
            let came = match turn {
                Turn::Came(number) => Some(number),
                Turn::Left(..) | Turn::Contested(..) => None,
            };
            self.tell_turn(turn);
            let Some((number, target)) = came.and_then(|it| Some((it, self.targets.get(it)?)))
            else {
                continue;
            };
            if self.roots.is_away(number) {
                continue;
            }
            let edit = |digest| Edit {
                routine: target.routine.clone(),
                saves: 1,
                digest,
                settled,
            };
            let known = self.routines.get(number);
            let seen = known.and_then(|known| known.seen);
            let edit = edit(seen.and_then(|seen| seen.digest));
            self.outbox.extend([Sighting::Edit(edit)]);
            // What it holds may be other than when it was last looked at.
            if seen.is_none_or(|seen| seen.key != snapshot::look(target)) {
                let mut inbox = self.shared.inbox();
                inbox.debounce.hint(number, Hint::Found, Instant::now());
            }
        }
    }

    fn tell_turn(&mut self, turn: Turn) {
        let told = match turn {
            Turn::Came(number) => {
                let target = self.targets.get(number);
                target.map(|target| Sighting::Came {
                    routine: target.routine.clone(),
                    entry: target.entry.clone(),
                    shown: self.shown(target),
                    glob: target.glob,
                })
            }
            Turn::Left(number, reason) => {
                self.waiting.remove(&number);
                let target = self.targets.get(number);
                target.map(|target| Sighting::Left {
                    routine: target.routine.clone(),
                    reason,
                })
            }
            Turn::Contested(what, help) => Some(Sighting::Unfit { what, help }),
        };
        self.outbox.extend(told);
    }

    /// The path of an entry as people read it: below the directory of the configuration, as far as that is known.
    fn shown(&self, target: &Target) -> String {
        let dirs: HashSet<&Path> = self.globs.iter().map(|glob| glob.dir()).collect();
        let mut inside = dirs
            .iter()
            .filter_map(|dir| target.entry.strip_prefix(dir).ok());
        let shown = inside.next().unwrap_or(&target.entry);
        shown.to_string_lossy().into_owned()
    }
}
