//! What the service tells of its routines while its answers lag behind its deeds. Pure.
//!
//! Each change is kept as a whole state with the moment from which it is told. Deeds always work on the present state;
//! only `describe` asks here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::routines::RoutineState;
use crate::routine::RoutineName;

/// The most states kept a routine; beyond it the oldest is forgotten, so that a very fast series of changes shows early.
const MAX_STATES: usize = 10_000;

/// The states of routines, each with the moment from which it is told. Empty while nothing lags.
#[derive(Debug, Default)]
pub(super) struct Views(BTreeMap<RoutineName, VecDeque<(Duration, RoutineState)>>);

impl Views {
    /// Notes how a routine is now, to be told from a moment on. What is as it was is not noted again.
    pub(super) fn note(&mut self, name: &RoutineName, state: &RoutineState, from: Duration) {
        let states = self.0.entry(name.clone()).or_default();
        if states.back().is_some_and(|(_, last)| last == state) {
            return;
        }
        if states.len() == MAX_STATES {
            states.pop_front();
        }
        states.push_back((from, state.clone()));
    }

    /// What is told of a routine now: the newest state whose moment has come.
    pub(super) fn told(&self, name: &RoutineName, now: Duration) -> Option<&RoutineState> {
        let states = self.0.get(name)?;
        let told = states.iter().rev().find(|(from, _)| *from <= now);
        told.or(states.front()).map(|(_, state)| state)
    }

    /// Forgets what will never be told again.
    pub(super) fn forget(&mut self, name: &RoutineName, now: Duration) {
        let Some(states) = self.0.get_mut(name) else {
            return;
        };
        while states.get(1).is_some_and(|(from, _)| *from <= now) {
            states.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn state(description: &str) -> RoutineState {
        RoutineState {
            created: Timestamp::UNIX_EPOCH,
            description: description.to_owned(),
            environments: Vec::new(),
            versions: Vec::new(),
        }
    }

    #[test]
    fn a_change_is_told_from_its_moment_on_and_not_before() {
        let name = RoutineName::new("hello").unwrap();
        let at = Duration::from_secs;
        let mut views = Views::default();
        assert!(views.told(&name, at(9)).is_none());
        views.note(&name, &state("a"), at(0));
        views.note(&name, &state("b"), at(5));
        views.note(&name, &state("b"), at(8));
        views.note(&name, &state("c"), at(9));
        for _ in 0..2 {
            let told = |now| views.told(&name, at(now)).unwrap().description.clone();
            assert_eq!([4, 5, 8, 9].map(told), ["a", "b", "b", "c"]);
        }
        views.forget(&name, at(5));
        assert_eq!(views.told(&name, at(5)).unwrap().description, "b");
        assert_eq!(views.0[&name].len(), 2);
    }
}
