//! At most one deploy of a routine runs and at most one waits. Pure.
//!
//! The queue holds that a routine is out of date, not what happened to it: a newer edit takes the place of one that
//! waits. It is as long as there are routines. That a routine's slots are still to be tidied is kept beside that: an edit
//! goes first, and only a pass that tidied, or was to, changes it.
//!
//! Of a routine whose entry a build makes, nothing goes up that was written during a run before the run has ended well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::report::standing::{Queued, Stage};
use crate::routine::{Edit, RoutineName};

/// The routines that are out of date.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    slots: BTreeMap<RoutineName, Slot>,
    untidy: BTreeMap<RoutineName, Untidy>,
    /// The routines of which nothing is started.
    held: BTreeSet<RoutineName>,
    /// How the builds of routines fare that do not rest.
    builds: BTreeMap<RoutineName, Building>,
    next_ticket: u64,
}

/// A slot is to be freed, which could not be done when the edit went up.
#[derive(Debug, Clone, Copy)]
struct Untidy {
    not_before: Instant,
    attempt: u32,
    ticket: u64,
}

/// How the build of a routine's entry fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Building {
    /// It runs, and edits wait for its end; whether one came meanwhile, which then is what it wrote.
    Running { wrote: bool },
    /// It ended well, and what it wrote may not have been told of.
    Settling,
    /// It failed, or rests for a reason; whether the edit that waits is what it wrote.
    Broken { wrote: bool },
}

/// What may be started.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// Bring an edit to the service.
    Deploy(Edit),
    /// Free a slot, which could not be done when the edit went up.
    Tidy(RoutineName),
}

impl Job {
    /// Whose it is.
    pub fn routine(&self) -> &RoutineName {
        match self {
            Self::Deploy(edit) => &edit.routine,
            Self::Tidy(routine) => routine,
        }
    }
}

/// A routine that is not in the queue is up to date.
#[derive(Debug, Clone)]
enum Slot {
    /// Only a slot is being freed.
    Tidying { newer: Option<Edit> },
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
    ///
    /// What comes while a build runs is what that writes. What comes after one failed is somebody else's, and goes up.
    pub fn push(&mut self, edit: Edit, now: Instant) -> Option<Edit> {
        match self.builds.get_mut(&edit.routine) {
            Some(Building::Running { wrote }) => *wrote = true,
            Some(Building::Broken { .. }) => {
                self.builds.remove(&edit.routine);
            }
            Some(Building::Settling) | None => {}
        }
        if let Some(Slot::Running { newer, .. } | Slot::Tidying { newer }) =
            self.slots.get_mut(&edit.routine)
        {
            return newer.replace(edit);
        }
        match self.wait(edit, now, 0) {
            Some(Slot::Waiting { edit, .. }) => Some(edit),
            _ => None,
        }
    }

    /// The build of a routine's entry runs: its edits wait.
    pub fn build_runs(&mut self, routine: RoutineName) {
        let building = self.builds.entry(routine);
        building
            .and_modify(|building| match building {
                Building::Running { .. } => {}
                Building::Broken { wrote } => *building = Building::Running { wrote: *wrote },
                Building::Settling => *building = Building::Running { wrote: false },
            })
            .or_insert(Building::Running { wrote: false });
    }

    /// The build ended well: edits go on, but for a first look, and what it wrote may still have to be told of.
    pub fn build_ended_well(&mut self, routine: RoutineName) {
        self.builds.insert(routine, Building::Settling);
    }

    /// The build ended well, and all that it wrote has been told of.
    pub fn build_rests(&mut self, routine: &RoutineName) {
        self.builds.remove(routine);
    }

    /// The build failed, or rests for a reason, and all that it wrote has been told of. What it wrote when it failed goes
    /// on waiting; an edit from before it goes on.
    pub fn build_broke(&mut self, routine: RoutineName) {
        let waits = match self.slots.get(&routine) {
            Some(Slot::Waiting { .. }) => true,
            Some(Slot::Running { newer, .. } | Slot::Tidying { newer }) => newer.is_some(),
            None => false,
        };
        let before = self.builds.get(&routine);
        let wrote = waits && matches!(before, Some(Building::Running { wrote: true }));
        self.builds.insert(routine, Building::Broken { wrote });
    }

    /// Whether an edit may go on as far as the build of its entry is concerned.
    fn is_built(&self, edit: &Edit) -> bool {
        match self.builds.get(&edit.routine) {
            None | Some(Building::Broken { wrote: false }) => true,
            // What was looked at before the run is not what the run made; an edit that tells of that is on its way.
            Some(Building::Settling) => edit.saves > 0,
            Some(Building::Running { .. } | Building::Broken { wrote: true }) => false,
        }
    }

    /// Lets nothing of a routine be started until it is released.
    pub fn hold(&mut self, routine: RoutineName) {
        self.held.insert(routine);
    }

    /// Lets a routine be started again.
    pub fn release(&mut self, routine: &RoutineName) {
        self.held.remove(routine);
    }

    /// Lets what waits for a moment to come start now. How often it was tried stays as it is.
    pub fn hurry(&mut self, now: Instant) {
        for slot in self.slots.values_mut() {
            if let Slot::Waiting { not_before, .. } = slot {
                *not_before = now.min(*not_before);
            }
        }
        for untidy in self.untidy.values_mut() {
            untidy.not_before = now.min(untidy.not_before);
        }
    }

    /// Takes every edit that waits for a routine of which nothing is started.
    pub fn take_held(&mut self) -> Vec<Edit> {
        let mut taken = Vec::new();
        for routine in &self.held {
            match self.slots.get_mut(routine) {
                Some(Slot::Running { newer, .. } | Slot::Tidying { newer }) => {
                    taken.extend(newer.take());
                }
                Some(Slot::Waiting { edit, .. }) => {
                    taken.push(edit.clone());
                    self.slots.remove(routine);
                }
                None => {}
            }
        }
        taken
    }

    /// Starts the routine that has waited longest of those that may start, unless as many run as may run.
    pub fn start(&mut self, now: Instant, most: usize) -> Option<Job> {
        if self.running() >= most {
            return None;
        }
        let free = |routine: &RoutineName| !self.held.contains(routine);
        let edits = self.slots.iter().filter_map(|(routine, slot)| match slot {
            Slot::Waiting {
                edit,
                not_before,
                ticket,
                ..
            } if *not_before <= now && free(routine) && self.is_built(edit) => {
                Some((*ticket, routine))
            }
            _ => None,
        });
        let idle = |routine: &RoutineName| !self.slots.contains_key(routine) && free(routine);
        let untidy = self.untidy.iter().filter_map(|(routine, untidy)| {
            (untidy.not_before <= now && idle(routine)).then_some((untidy.ticket, routine))
        });
        let (_, routine) = edits.chain(untidy).min()?;
        let routine = routine.clone();
        let (slot, job) = match self.slots.remove(&routine) {
            Some(Slot::Waiting { edit, attempt, .. }) => (
                Slot::Running {
                    edit: edit.clone(),
                    attempt,
                    newer: None,
                    landed: false,
                },
                Job::Deploy(edit),
            ),
            _ => (Slot::Tidying { newer: None }, Job::Tidy(routine.clone())),
        };
        self.slots.insert(routine, slot);
        Some(job)
    }

    /// A routine's slots are to be tidied later. What was noted of that before no longer holds.
    pub fn put_untidy(&mut self, routine: &RoutineName, not_before: Instant, attempt: u32) {
        let ticket = self.ticket();
        self.untidy.insert(
            routine.clone(),
            Untidy {
                not_before,
                attempt,
                ticket,
            },
        );
    }

    /// A routine's slots are to be tidied later, unless that is planned already.
    pub fn owe_tidy(&mut self, routine: &RoutineName, not_before: Instant) {
        if !self.untidy.contains_key(routine) {
            self.put_untidy(routine, not_before, 0);
        }
    }

    /// A routine's slots are tidy, or nothing but an edit can help. Returns how often tidying was tried before.
    pub fn take_untidy(&mut self, routine: &RoutineName) -> Option<u32> {
        self.untidy.remove(routine).map(|untidy| untidy.attempt)
    }

    /// Tidying ended. Returns the edit that came meanwhile, which is not queued again; `None` if nothing was tidied.
    pub fn finish_tidy(&mut self, routine: &RoutineName) -> Option<Option<Edit>> {
        match self.slots.get_mut(routine) {
            Some(Slot::Tidying { newer }) => {
                let newer = newer.take();
                self.slots.remove(routine);
                Some(newer)
            }
            _ => None,
        }
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
            _ => 0,
        }
    }

    /// When the next waiting routine may start; `None` while as many run as may run, since then only an end helps.
    pub fn next_deadline(&self, most: usize) -> Option<Instant> {
        if self.running() >= most {
            return None;
        }
        let free = |routine: &RoutineName| !self.held.contains(routine);
        let edits = self.slots.iter().filter_map(|(routine, slot)| match slot {
            Slot::Waiting {
                edit, not_before, ..
            } if free(routine) && self.is_built(edit) => Some(*not_before),
            _ => None,
        });
        let idle = |routine: &RoutineName| !self.slots.contains_key(routine) && free(routine);
        let untidy = self.untidy.iter();
        let untidy = untidy.filter(|(routine, _)| idle(routine));
        edits
            .chain(untidy.map(|(_, untidy)| untidy.not_before))
            .min()
    }

    /// Deploys that run.
    pub fn running(&self) -> usize {
        let running = |slot: &&Slot| matches!(slot, Slot::Running { .. } | Slot::Tidying { .. });
        self.slots.values().filter(running).count()
    }

    /// Edits that wait, those behind running deploys too.
    pub fn waiting(&self) -> usize {
        let waits = |slot: &&Slot| match slot {
            Slot::Waiting { .. } => true,
            Slot::Running { newer, .. } | Slot::Tidying { newer } => newer.is_some(),
        };
        self.slots.values().filter(waits).count()
    }

    /// What there is of a routine.
    pub fn queued(&self, routine: &RoutineName, now: Instant) -> Queued {
        let behind = |newer: &Option<Edit>| usize::from(newer.is_some());
        let (edits, stage) = match self.slots.get(routine) {
            None => (0, Stage::Idle),
            Some(Slot::Waiting { not_before, .. }) if *not_before > now => (1, Stage::Later),
            Some(Slot::Waiting { .. }) => (1, Stage::Running),
            Some(Slot::Tidying { newer: None }) => (0, Stage::Idle),
            Some(Slot::Tidying { newer: Some(_) }) => (1, Stage::Running),
            Some(Slot::Running {
                newer: None,
                landed: true,
                ..
            }) => (0, Stage::Trimming),
            Some(Slot::Running { newer, landed, .. }) => {
                (usize::from(!landed) + behind(newer), Stage::Running)
            }
        };
        let runs = matches!(self.slots.get(routine), Some(Slot::Running { .. }));
        let stage = match (self.builds.get(routine), stage) {
            (Some(Building::Running { .. }), _) => Stage::Building,
            (Some(Building::Settling), Stage::Idle) => Stage::Building,
            (Some(Building::Broken { wrote: true }), _) if !runs => Stage::Broken,
            (Some(Building::Broken { wrote: false }), Stage::Idle) => Stage::Broken,
            (_, stage) => stage,
        };
        Queued { edits, stage }
    }

    /// Whether no edit waits and nothing runs.
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
            Slot::Running { newer, .. } | Slot::Tidying { newer } => {
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
            Slot::Tidying { .. } => false,
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
        let ticket = self.ticket();
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

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }
}
