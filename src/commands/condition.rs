//! What all deploys share and people want to know once, when it changes: the state directory, the budget of requests,
//! the clock.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::gate::State;
use crate::cloud::time::Offset;
use crate::config::Limits;
use crate::report::class::Class;
use crate::report::{Event, Problem, Safety};
use crate::revision::deploy::{Session, Trouble};

use crate::routine::RoutineName;

/// What helps where the state directory cannot be used.
pub(super) const MAKE_ROOM: &str = "make room in the state directory and see that it can be written, or give another one with `--state-dir DIR`";

/// What has been told so far. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    cloud: Arc<Cloud>,
    limits: Limits,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    /// The routines whose last pass had to do with less safety because of the state directory.
    state: BTreeSet<RoutineName>,
    /// Those that had to because of the key.
    permission: BTreeSet<RoutineName>,
    /// The rate, if it is not the configured one.
    rate: Option<u32>,
    alone: bool,
    clock: Duration,
}

impl Condition {
    /// A condition in which nothing is wrong.
    pub(super) fn new(cloud: Arc<Cloud>, limits: Limits) -> Self {
        Self {
            cloud,
            limits,
            told: Arc::default(),
        }
    }

    /// Lists a routine again that was listed with another key, which may be another account's.
    pub(super) async fn list_again(&self, session: &mut Session) -> Result<(), CloudError> {
        if self.cloud.is_of_another_key(&session.routine().name).await {
            session.list().await?;
        }
        Ok(())
    }

    /// What has changed since this was last asked, by what a routine's last pass met.
    pub(super) fn changes(&self, session: &Session) -> Vec<Event> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = told.trouble(&session.routine().name, session.trouble());
        let others = [
            told.budget(self.limits, &self.cloud.budget()),
            told.rate(self.limits, &self.cloud.budget()),
            told.clock(self.cloud.clock_offset()),
        ];
        events.extend(others.into_iter().flatten());
        events
    }
}

impl Told {
    /// Each of the two kinds is told with the first routine that meets it, and its end with the last.
    fn trouble(&mut self, routine: &RoutineName, trouble: Option<&Trouble>) -> Vec<Event> {
        let state = matches!(trouble, Some(Trouble::State(_) | Trouble::Vault(_)));
        let permission = matches!(trouble, Some(Trouble::Permission(_)));
        let changes = [
            change(&mut self.state, routine, state),
            change(&mut self.permission, routine, permission),
        ];
        let mut events = Vec::new();
        if let Some(trouble) = trouble.filter(|_| changes.contains(&Some(true))) {
            let what = format!("{trouble}; uploads go on, nothing is deleted");
            events.push(match trouble {
                Trouble::State(_) | Trouble::Vault(_) => {
                    degraded(Safety::State, what, MAKE_ROOM, Class::State)
                }
                Trouble::Permission(error) => {
                    degraded(Safety::Permission, what, &error.help(), Class::Credentials)
                }
            });
        }
        let over = [
            (
                Safety::State,
                "what was deleted can be kept again, and versions rotate as usual",
            ),
            (
                Safety::Permission,
                "the key may delete again, and versions rotate as usual",
            ),
        ];
        for (change, (safety, what)) in changes.into_iter().zip(over) {
            if change == Some(false) {
                let what = what.into();
                events.push(Event::Restored { safety, what });
            }
        }
        events
    }

    fn budget(&mut self, limits: Limits, state: &State) -> Option<Event> {
        match (&state.degraded, self.alone) {
            (Some(reason), false) => {
                self.alone = true;
                Some(degraded(
                    Safety::Budget,
                    format!(
                        "the budget of requests cannot be shared: {reason}; at most 5 requests a second are made, one at a time"
                    ),
                    MAKE_ROOM,
                    Class::State,
                ))
            }
            (None, true) => {
                self.alone = false;
                Some(Event::Restored {
                    safety: Safety::Budget,
                    what: format!(
                        "the budget of requests is shared again: {}/s",
                        limits.requests_per_second
                    ),
                })
            }
            _ => None,
        }
    }

    /// The rate is told when it falls, and when it is back where it was.
    fn rate(&mut self, limits: Limits, state: &State) -> Option<Event> {
        if state.degraded.is_some() {
            return None;
        }
        let (rate, before) = (state.rate, self.rate.unwrap_or(limits.requests_per_second));
        let reduced = rate < limits.requests_per_second;
        self.rate = reduced.then_some(rate);
        (rate < before || (!reduced && rate > before)).then_some(Event::Budget {
            requests_per_second: rate,
            burst: limits.burst,
            in_flight: limits.max_in_flight,
        })
    }

    fn clock(&mut self, offset: Offset) -> Option<Event> {
        if offset.by == self.clock {
            return None;
        }
        self.clock = offset.by;
        if offset.by.is_zero() {
            return Some(Event::Restored {
                safety: Safety::Clock,
                what: "this machine's clock was set, and requests are signed with its time".into(),
            });
        }
        let (seconds, side) = (
            offset.by.as_secs(),
            if offset.behind { "behind" } else { "ahead of" },
        );
        Some(degraded(
            Safety::Clock,
            format!(
                "this machine's clock is {seconds} s {side} the service's; requests are signed with the service's time"
            ),
            "set this machine's clock, for example with `timedatectl set-ntp true`",
            Class::Clock,
        ))
    }
}

/// Puts a routine in or takes it out. `Some(true)` if it is the first in, `Some(false)` if it was the last one out.
fn change(
    routines: &mut BTreeSet<RoutineName>,
    routine: &RoutineName,
    is_in: bool,
) -> Option<bool> {
    if is_in {
        let first = routines.is_empty();
        routines.insert(routine.clone());
        return first.then_some(true);
    }
    let last = routines.remove(routine) && routines.is_empty();
    last.then_some(false)
}

fn degraded(safety: Safety, what: String, help: &str, class: Class) -> Event {
    Event::Degraded {
        safety,
        problem: Problem {
            what,
            help: help.into(),
            class,
            operation: None,
            request_id: None,
            frame: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::cloud::error::Class as CloudClass;

    use super::*;

    fn state() -> Trouble {
        Trouble::State("the disk is full".into())
    }

    fn permission() -> Trouble {
        let what = "not authorised";
        let mut error =
            CloudError::unusable(CloudClass::Credentials, "DeleteRoutineCodeRevision", what);
        error.code = Some("Forbidden.RAM".into());
        Trouble::Permission(error)
    }

    /// What is told of a routine's trouble: its class, or that one is over.
    fn told(told: &mut Told, routine: &str, trouble: Option<&Trouble>) -> Vec<Option<Class>> {
        let routine = RoutineName::new(routine).unwrap();
        let events = told.trouble(&routine, trouble);
        let class = events.into_iter().map(|event| match event {
            Event::Degraded { problem, .. } => Some(problem.class),
            Event::Restored { .. } => None,
            other => panic!("{other:?}"),
        });
        class.collect()
    }

    #[test]
    fn what_all_routines_share_is_told_with_the_first_and_over_with_the_last() {
        let mut all = Told::default();
        assert_eq!(told(&mut all, "a", Some(&state())), [Some(Class::State)]);
        assert_eq!(told(&mut all, "b", Some(&state())), []);
        assert_eq!(told(&mut all, "a", None), []);
        assert_eq!(told(&mut all, "b", None), [None]);
        assert_eq!(told(&mut all, "b", None), []);
    }

    #[test]
    fn the_trouble_of_one_routine_does_not_swallow_another_ones_of_another_kind() {
        let mut all = Told::default();
        let credentials = [Some(Class::Credentials)];
        assert_eq!(told(&mut all, "a", Some(&state())), [Some(Class::State)]);
        assert_eq!(told(&mut all, "b", Some(&permission())), credentials);
        // One is over and the other begins.
        assert_eq!(told(&mut all, "a", Some(&permission())), [None]);
        assert_eq!(told(&mut all, "b", None), []);
        assert_eq!(told(&mut all, "a", None), [None]);
    }
}
