//! The staging slot: where code goes that is only tried, and how it becomes a version. Pure.
//!
//! Where the one slot is overwritten it stands among the versions under the name `unstable`, without a number. It counts
//! against the cap, and what it holds is live in `staging` as soon as its code has come.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::reply::Refusal;
use super::routines::{RoutineState, Version};
use super::world::{Slot, World};
use crate::routine::{Revision, RoutineName};

/// The name of the slot.
const UNSTABLE: &str = "unstable";

/// The environment that staging uploads go live in.
const ENVIRONMENT: &str = "staging";

/// Where a staging upload puts its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staging {
    /// Into the one slot `unstable`, in place of what was there.
    Overwrite,
    /// Into a version of its own, as any upload does.
    New,
}

impl World {
    /// Begins a staging upload: what its code is for, and what the answer names.
    pub(super) fn begin_staging(
        &mut self,
        name: &RoutineName,
        description: &str,
        now: Timestamp,
    ) -> Result<(Revision, Revision), Refusal> {
        if self.settings.staging == Staging::New {
            let revision = self.begin_upload(name, description, now)?;
            self.staged.extend(revision.number());
            return Ok((revision.clone(), revision));
        }
        let unstable = Revision::new(UNSTABLE);
        let stored_description = self.store_text(description);
        let (slot, cap) = (self.settings.slot, self.settings.cap);
        let routine = self.routine_mut(name)?;
        if slot == Slot::AtUpload {
            // The words are the new ones from here on, and the code is the old one until the new one comes.
            match routine.versions.iter_mut().find(|v| v.revision == unstable) {
                Some(there) => there.stored_description = stored_description,
                None => {
                    let version = Version {
                        revision: unstable.clone(),
                        stored_description,
                        code: None,
                    };
                    routine.add(version, cap)?;
                }
            }
        }
        let told = if self.settings.staging_is_numbered {
            self.next_number(now)
        } else {
            unstable.clone()
        };
        Ok((unstable, told))
    }

    /// Makes a version of what is on staging, which stays there.
    pub(super) fn commit_staging(
        &mut self,
        name: &RoutineName,
        description: &str,
        now: Timestamp,
    ) -> Result<Revision, Refusal> {
        let cap = self.settings.cap;
        let stored_description = self.store_text(description);
        let revision = self.next_number(now);
        let routine = self.routine_mut(name)?;
        let unstable = Revision::new(UNSTABLE);
        let source = match routine.version(&unstable) {
            Some(slot) => Some(slot),
            None => routine
                .live(ENVIRONMENT)
                .and_then(|live| routine.version(live)),
        };
        let code = source.and_then(|version| version.code.clone());
        let code = code.ok_or_else(|| Refusal::general("there is no code in staging"))?;
        let version = Version {
            revision,
            stored_description,
            code: Some(code),
        };
        routine.add(version, cap)
    }
}

/// Takes code that was posted for staging, and runs it there.
pub(super) fn register(
    routine: &mut RoutineState,
    version: Version,
    cap: usize,
) -> Result<(), Refusal> {
    let revision = version.revision.clone();
    match routine.versions.iter_mut().find(|v| v.revision == revision) {
        Some(there) => *there = version,
        None => {
            routine.add(version, cap)?;
        }
    }
    for environment in &mut routine.environments {
        if environment.name == ENVIRONMENT {
            environment.live = (!revision.is_staging()).then(|| revision.clone());
        }
    }
    Ok(())
}

/// The test nodes, from the addresses that are kept for documentation.
pub(super) fn addresses() -> Value {
    json!({"IPV4s": {"IPV4": ["203.0.113.7", "203.0.113.8"]}})
}

#[cfg(test)]
mod tests {
    use super::super::world::Settings;
    use super::*;
    use crate::routine::Code;

    fn noon() -> Timestamp {
        "2026-02-03T12:00:00Z".parse().unwrap()
    }

    fn hello() -> RoutineName {
        RoutineName::new("hello").unwrap()
    }

    fn world(switches: &[&str]) -> World {
        let mut settings = Settings::default();
        for switch in switches {
            settings.set(switch).unwrap();
        }
        let mut world = World::new(settings, "http://127.0.0.1:9480");
        world.create_routine(&hello(), "", noon()).unwrap();
        world
    }

    fn upload(world: &mut World, text: &str) -> (Revision, Revision) {
        let (slot, told) = world.begin_staging(&hello(), text, noon()).unwrap();
        let code = Code::new(text.as_bytes().to_vec());
        world.register(&hello(), &slot, text, code).unwrap();
        (slot, told)
    }

    #[test]
    fn the_one_slot_is_overwritten_and_its_code_runs_on_staging_at_once() {
        for (name, is_number) in [("unstable", false), ("number", true)] {
            let mut world = world(&[&format!("staging_name={name}")]);
            upload(&mut world, "a");
            let (slot, told) = upload(&mut world, "b");
            assert!(slot.is_staging());
            assert_eq!(told.number().is_some(), is_number);
            let routine = world.routine(&hello()).unwrap();
            let [version] = routine.versions()[..] else {
                panic!()
            };
            assert_eq!(version.bytes(), Some(&b"b"[..]));
            assert_eq!(routine.live(ENVIRONMENT), None);
        }
    }

    #[test]
    fn the_words_come_before_the_code_only_where_the_slot_is_taken_at_the_upload() {
        for (alloc, words) in [("upload", "b"), ("callback", "a")] {
            let mut world = world(&[&format!("alloc={alloc}"), "desc_form=plain"]);
            upload(&mut world, "a");
            world.begin_staging(&hello(), "b", noon()).unwrap();
            let routine = world.routine(&hello()).unwrap();
            let version = routine.version(&Revision::staging()).unwrap();
            assert_eq!(
                (version.description().as_str(), version.bytes()),
                (words, Some(&b"a"[..]))
            );
        }
    }

    #[test]
    fn where_each_upload_is_a_version_it_is_live_on_staging() {
        let mut world = world(&["staging=new"]);
        upload(&mut world, "a");
        let (slot, told) = upload(&mut world, "b");
        assert_eq!(slot, told);
        let routine = world.routine(&hello()).unwrap();
        assert_eq!(routine.live(ENVIRONMENT), Some(&slot));
        assert_eq!(routine.versions().len(), 2);
    }

    #[test]
    fn the_slot_counts_against_the_cap_and_a_commit_keeps_it() {
        let mut world = world(&["cap=2"]);
        assert!(world.commit_staging(&hello(), "", noon()).is_err());
        upload(&mut world, "a");
        let made = world.commit_staging(&hello(), "words", noon()).unwrap();
        let routine = world.routine(&hello()).unwrap();
        assert_eq!(routine.version(&made).unwrap().bytes(), Some(&b"a"[..]));
        assert!(routine.version(&Revision::staging()).is_some());
        assert!(world.commit_staging(&hello(), "", noon()).is_err(), "full");
        upload(&mut world, "b");
    }
}
