//! At most one deploy of a routine runs and at most one waits. Pure.
//!
//! The queue holds that a routine is out of date, not what happened to it: a newer edit takes the place of one that
//! waits. It is as long as there are routines.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::routine::{Edit, RoutineName};

/// The routines that are out of date.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    slots: BTreeMap<RoutineName, Slot>,
    next_ticket: u64,
}

/// A routine that is not in the queue is up to date.
#[derive(Debug, Clone)]
enum Slot {
    Waiting {
        edit: Edit,
        not_before: Instant,
        attempt: u32,
        ticket: u64,
    },
    Running {
        edit: Edit,
        attempt: u32,
        /// An edit that came meanwhile: the routine is stale and runs once more.
        newer: Option<Edit>,
        /// Whether its bytes are on the service already and only a slot is being freed.
        landed: bool,
    },
}

impl Queue {
    /// An edit came. Returns the waiting edit whose place it takes. The newcomer does not inherit a pause.
    pub fn push(&mut self, edit: Edit, now: Instant) -> Option<Edit> {
        if let Some(Slot::Running { newer, .. }) = self.slots.get_mut(&edit.routine) {
            return newer.replace(edit);
        }
        match self.wait(edit, now, 0) {
            Some(Slot::Waiting { edit, .. }) => Some(edit),
            _ => None,
        }
    }

    /// Starts the routine that has waited longest of those that may start, unless as many run as may run.
    pub fn start(&mut self, now: Instant, most: usize) -> Option<Edit> {
        if self.running() >= most {
            return None;
        }
        let due = |slot: &Slot| match slot {
            Slot::Waiting {
                not_before, ticket, ..
            } if *not_before <= now => Some(*ticket),
            _ => None,
        };
        let (_, routine) = self
            .slots
            .iter()
            .filter_map(|(routine, slot)| Some((due(slot)?, routine.clone())))
            .min()?;
        let Some(Slot::Waiting { edit, attempt, .. }) = self.slots.remove(&routine) else {
            return None;
        };
        let slot = Slot::Running {
            edit: edit.clone(),
            attempt,
            newer: None,
            landed: false,
        };
        self.slots.insert(routine, slot);
        Some(edit)
    }

    /// A running deploy ended for good. Returns its edit and the one that came meanwhile, which is not queued again.
    pub fn finish(&mut self, routine: &RoutineName) -> Option<(Edit, Option<Edit>)> {
        match self.slots.remove(routine) {
            Some(Slot::Running { edit, newer, .. }) => Some((edit, newer)),
            Some(waiting) => {
                self.slots.insert(routine.clone(), waiting);
                None
            }
            None => None,
        }
    }

    /// Puts an edit whose deploy did not succeed back, to be tried again.
    pub fn put_back(&mut self, edit: Edit, not_before: Instant, attempt: u32) {
        self.wait(edit, not_before, attempt);
    }

    /// Takes the waiting edit of a routine out if it is one of those. One behind a running deploy is left there.
    pub fn take_if(
        &mut self,
        routine: &RoutineName,
        is_one: impl Fn(&Edit) -> bool,
    ) -> Option<Edit> {
        match self.slots.get(routine) {
            Some(Slot::Waiting { edit, .. }) if is_one(edit) => {}
            _ => return None,
        }
        match self.slots.remove(routine) {
            Some(Slot::Waiting { edit, .. }) => Some(edit),
            _ => None,
        }
    }

    /// The running deploy's bytes are on the service. `false` if that was known, or nothing runs.
    pub fn land(&mut self, routine: &RoutineName) -> bool {
        match self.slots.get_mut(routine) {
            Some(Slot::Running { landed, .. }) => !std::mem::replace(landed, true),
            _ => false,
        }
    }

    /// How often the running deploy's edit was tried before.
    pub fn attempt(&self, routine: &RoutineName) -> u32 {
        match self.slots.get(routine) {
            Some(Slot::Running { attempt, .. } | Slot::Waiting { attempt, .. }) => *attempt,
            None => 0,
        }
    }

    /// When the next waiting routine may start; `None` while as many run as may run, since then only an end helps.
    pub fn next_deadline(&self, most: usize) -> Option<Instant> {
        if self.running() >= most {
            return None;
        }
        self.slots
            .values()
            .filter_map(|slot| match slot {
                Slot::Waiting { not_before, .. } => Some(*not_before),
                Slot::Running { .. } => None,
            })
            .min()
    }

    /// Deploys that run.
    pub fn running(&self) -> usize {
        let running = |slot: &&Slot| matches!(slot, Slot::Running { .. });
        self.slots.values().filter(running).count()
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes every edit that waits, those behind running deploys too.
    pub fn take_waiting(&mut self) -> Vec<Edit> {
        let mut taken = Vec::new();
        self.slots.retain(|_, slot| match slot {
            Slot::Waiting { edit, .. } => {
                taken.push(edit.clone());
                false
            }
            Slot::Running { newer, .. } => {
                taken.extend(newer.take());
                true
            }
        });
        taken
    }

    /// Takes the edits of the deploys that run, as a stop does that waits no longer. Those that landed have ended.
    pub fn take_running(&mut self) -> Vec<Edit> {
        let mut taken = Vec::new();
        self.slots.retain(|_, slot| match slot {
            Slot::Waiting { .. } => true,
            Slot::Running { edit, landed, .. } => {
                if !*landed {
                    taken.push(edit.clone());
                }
                false
            }
        });
        taken
    }

    fn wait(&mut self, edit: Edit, not_before: Instant, attempt: u32) -> Option<Slot> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.slots.insert(
            edit.routine.clone(),
            Slot::Waiting {
                edit,
                not_before,
                attempt,
                ticket,
            },
        )
    }
}
