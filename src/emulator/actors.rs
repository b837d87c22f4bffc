//! What other people do to the routines, past the API: upload, publish, delete. Pure.
//!
//! Each deed stands in the history as a person's, so that whoever judges a client can tell its deeds from theirs. The
//! rules are those of `world`, which people meet as well.

use jiff::Timestamp;

use super::history::{
    Actor, Mark, PERSON_DELETE, PERSON_PUBLISH, PERSON_STAGE, PERSON_UPLOAD, Record, nanoseconds,
};
use super::reply::Refusal;
use super::world::World;
use crate::routine::{Code, NameError, Revision, RoutineName};

/// The description of what [`World::act`] uploads.
pub const BY_HAND: &str = "by hand";

/// Why a deed was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// The text is no deed.
    #[error(
        "`{0}` is no deed; write `publish <routine> <revision> <environment>`, `delete <routine> <revision>`, \
         `upload <routine> <text>` or `stage <routine> <text>`; for a revision also oldest, newest, or nth:3 for the third oldest"
    )]
    Shape(String),
    /// The name of the routine is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such version.
    #[error("routine {0} has no version `{1}`")]
    Missing(RoutineName, String),
    /// The service refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl World {
    /// Puts a version there as somebody else's upload would, made at the given time. Without `code` it is an upload
    /// that was never posted. It is told at once, also where answers lag. Fails if the routine is missing or full.
    pub fn seed(
        &mut self,
        name: &RoutineName,
        code: Option<&[u8]>,
        description: &str,
        made: Timestamp,
    ) -> Result<Revision, Refusal> {
        let code = code.map(|bytes| Code::new(bytes.to_vec()));
        let (revision, record) = self.added(name, code, description, made)?;
        self.tell(name);
        self.keep(record);
        Ok(revision)
    }

    /// Makes a version live in environments, in all of them or in none. Fails if one of them or the version is
    /// unknown, or the version has no code.
    pub fn publish(
        &mut self,
        name: &RoutineName,
        revision: &Revision,
        environments: &[&str],
    ) -> Result<(), Refusal> {
        self.set_live(name, revision, environments)?;
        self.keep(Record {
            environments: environments.iter().map(|env| (*env).to_owned()).collect(),
            ..self.deed(PERSON_PUBLISH, name, revision)
        });
        Ok(())
    }

    /// Removes a version. Fails if it is unknown, or live while [`super::world::Settings::guard`] is on.
    pub fn delete(&mut self, name: &RoutineName, revision: &Revision) -> Result<(), Refusal> {
        let live = self.is_live(name, revision);
        self.removable(name, revision)?;
        self.remove(name, revision)?;
        self.keep(Record {
            live,
            ..self.deed(PERSON_DELETE, name, revision)
        });
        Ok(())
    }

    /// Puts code on staging, as somebody else's upload does. Fails if the routine is missing, or full.
    pub fn stage(&mut self, name: &RoutineName, code: Code) -> Result<(), Refusal> {
        let sha256 = code.digest();
        let unstable = Revision::new("unstable");
        let words = self.store_text(BY_HAND);
        self.register(name, &unstable, &words, code)?;
        self.keep(Record {
            sha256: Some(sha256),
            ..self.deed(PERSON_STAGE, name, &unstable)
        });
        Ok(())
    }

    /// Does what a line says, such as `publish hello oldest production`, and tells the version it was about.
    pub fn act(&mut self, line: &str) -> Result<Revision, ActError> {
        let shape = || ActError::Shape(line.to_owned());
        let (deed, rest) = line.trim().split_once(' ').ok_or_else(shape)?;
        let (name, rest) = rest.trim_start().split_once(' ').ok_or_else(shape)?;
        let name = RoutineName::new(name)?;
        match deed {
            "upload" => {
                let code = Code::new(rest.as_bytes().to_vec());
                let (revision, record) = self.added(&name, Some(code), BY_HAND, self.now.wall)?;
                self.keep(record);
                Ok(revision)
            }
            "stage" => {
                let code = Code::new(rest.as_bytes().to_vec());
                self.stage(&name, code)?;
                Ok(Revision::new("unstable"))
            }
            "publish" => {
                let (which, environment) = rest.trim().split_once(' ').ok_or_else(shape)?;
                let revision = self.pick(&name, which)?;
                self.publish(&name, &revision, &[environment.trim()])?;
                Ok(revision)
            }
            "delete" => {
                let revision = self.pick(&name, rest.trim())?;
                self.delete(&name, &revision)?;
                Ok(revision)
            }
            _ => Err(shape()),
        }
    }

    fn added(
        &mut self,
        name: &RoutineName,
        code: Option<Code>,
        description: &str,
        made: Timestamp,
    ) -> Result<(Revision, Record), Refusal> {
        let sha256 = code.as_ref().map(Code::digest);
        let revision = self.add_version(name, code, description, made)?;
        let record = Record {
            sha256,
            mark: Mark::read(description),
            ..self.deed(PERSON_UPLOAD, name, &revision)
        };
        Ok((revision, record))
    }

    fn deed(&self, op: &'static str, name: &RoutineName, revision: &Revision) -> Record {
        let now = nanoseconds(self.now.elapsed);
        Record {
            t: now,
            ended: now,
            actor: Actor::Person,
            op,
            routine: Some(name.clone()),
            revision: Some(revision.clone()),
            processed: true,
            ..Record::default()
        }
    }

    fn pick(&self, name: &RoutineName, which: &str) -> Result<Revision, ActError> {
        let versions = self.routine(name).map(|routine| routine.versions());
        let versions = versions.unwrap_or_default();
        let found = match which {
            "oldest" => versions.first(),
            "newest" => versions.last(),
            _ => match which.strip_prefix("nth:").map(str::parse::<usize>) {
                Some(Ok(place)) => place.checked_sub(1).and_then(|index| versions.get(index)),
                Some(Err(_)) => None,
                None => versions.iter().find(|v| v.revision.as_str() == which),
            },
        };
        found
            .map(|version| version.revision.clone())
            .ok_or_else(|| ActError::Missing(name.clone(), which.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::Settings;
    use super::*;

    fn world() -> (World, RoutineName) {
        let mut world = World::new(Settings::default(), "http://127.0.0.1:1");
        let hello = RoutineName::new("hello").unwrap();
        world
            .create_routine(&hello, "", Timestamp::UNIX_EPOCH)
            .unwrap();
        (world, hello)
    }

    #[test]
    fn people_upload_publish_and_delete_and_each_deed_is_theirs_in_the_history() {
        let (mut world, hello) = world();
        let first = world
            .act("upload hello let a = 1;  // two  spaces")
            .unwrap();
        let second = world.act("upload hello b").unwrap();
        world.act("upload hello c").unwrap();
        assert_eq!(world.act("publish hello nth:2 staging").unwrap(), second);
        assert_eq!(world.act("delete hello oldest").unwrap(), first);
        assert_eq!(
            world.act(&format!("delete hello {second}")).unwrap(),
            second
        );
        let state = world.routine(&hello).unwrap();
        assert_eq!(state.versions().len(), 1);
        assert_eq!(state.versions()[0].description(), BY_HAND);
        assert_eq!(state.live("staging"), Some(&second));
        let told: Vec<(&str, Option<usize>, bool)> = world
            .history()
            .iter()
            .map(|r| {
                assert_eq!((r.actor, r.processed), (Actor::Person, true));
                (r.op, r.slots, r.live)
            })
            .collect();
        let expected = [
            ("upload", Some(1), false),
            ("upload", Some(2), false),
            ("upload", Some(3), false),
            ("publish", Some(3), false),
            ("delete", Some(2), false),
            ("delete", Some(1), true),
        ];
        assert_eq!(told, expected);
        let code = b"let a = 1;  // two  spaces";
        let upload = world.history().iter().next().unwrap();
        assert_eq!(upload.sha256, Some(crate::routine::Digest::of(code)));
    }

    #[test]
    fn what_cannot_be_done_is_told_and_leaves_no_record() {
        let (mut world, _) = world();
        for (line, words) in [
            ("", "upload <routine> <text>"),
            ("upload hello", "upload <routine> <text>"),
            ("break hello it", "is no deed"),
            ("publish hello newest", "is no deed"),
            ("delete hello newest", "no version `newest`"),
            ("delete hello nth:0", "no version `nth:0`"),
            ("delete hello 17", "no version `17`"),
            ("upload other x", "does not exist"),
            ("upload a/b x", "cannot stand in a routine name"),
        ] {
            let error = world.act(line).unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
        world.act("upload hello a").unwrap();
        let error = world.act("publish hello newest nowhere").unwrap_err();
        assert!(error.to_string().contains("no such environment: nowhere"));
        assert_eq!(world.history().iter().len(), 1);
    }
}
