//! What all deploys share and people want to know once, when it changes: whether the state directory can be used.

use std::sync::{Arc, Mutex, PoisonError};

use crate::report::class::Class;
use crate::report::{Event, Problem};
use crate::revision::deploy::Session;
use crate::routine::RoutineName;

/// What has been told so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    /// The routine whose pass had to do with less safety, until one of it has not.
    trouble: Option<RoutineName>,
}

impl Condition {
    /// What has changed since this was last asked, by what a routine's last pass met.
    pub(super) fn changes(&self, session: &Session) -> Vec<Event> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let routine = &session.routine().name;
        match (session.trouble(), &told.trouble) {
            (Some(trouble), None) => {
                told.trouble = Some(routine.clone());
                vec![Event::Degraded {
                    problem: Problem {
                        what: format!("{trouble}; uploads go on, nothing is deleted"),
                        help: "make room in the state directory and see that it can be written, or give another one with `--state-dir DIR`".into(),
                        class: Class::State,
                        operation: None,
                        request_id: None,
                        frame: None,
                    },
                }]
            }
            (None, Some(teller)) if teller == routine => {
                told.trouble = None;
                vec![Event::Restored {
                    what: "the state directory can be used again".into(),
                }]
            }
            _ => Vec::new(),
        }
    }
}
