//! The operations of the API that change something: parameters in, the documented JSON out.
//!
//! What they change is in `world`; those that only tell something are in `describe`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::form;
use super::gateway::Call;
use super::history::{Mark, Record};
use super::replay::{COMMIT, STAGE};
use super::reply::{self, Format, Refusal, Reply};
use super::routines::no_such_routine;
use super::staging;
use super::switches::MAX_DESCRIPTION;
use super::world::{Now, Visit, World};
use crate::routine::{Revision, RoutineName};

/// The only version of the API.
const VERSION: &str = "2018-01-15";

/// The operation under which a call is recorded that names none the emulator knows.
const UNKNOWN: &str = "Unknown";

/// The longest description of a routine, in characters.
const MAX_ROUTINE_DESCRIPTION: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    CommitStagingRoutineCode,
    CreateRoutine,
    DeleteRoutineCodeRevision,
    DescribeDcdnStagingIp,
    DescribeRoutine,
    DescribeRoutineCodeRevision,
    DescribeRoutineUserInfo,
    PublishRoutineCodeRevision,
    UploadRoutineCode,
    UploadStagingRoutineCode,
}

/// One entry of the `EnvConf` a caller may give.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnvironmentWish {
    spec_name: Option<String>,
    allowed_hosts: Option<Vec<String>>,
}

impl World {
    /// Answers one call to the API and records it. A call that could not even be read is handed in as its refusal.
    pub fn call(&mut self, call: Result<&Call, Refusal>, visit: &Visit<'_>) -> Reply {
        self.now = visit.now;
        let read = call.as_ref().ok().copied();
        let operation = read.and_then(Operation::of);
        let mut record = record(read, visit);
        let (op, format) = (record.op, read.map_or(Format::Xml, Call::format));
        let is_delete = operation == Some(Operation::DeleteRoutineCodeRevision);
        let there = self.holds(&record);
        if let (true, Some(name), Some(revision)) = (is_delete, &record.routine, &record.revision) {
            record.live = self.is_live(name, revision);
        }

        let mut outcome = call.and_then(|c| self.execute(c, operation, visit.now));
        record.processed = outcome.is_ok() && (!is_delete || there && !self.holds(&record));
        if let Ok(content) = &mut outcome {
            record.revision = form::issued_for(content)
                .or_else(|| content["CodeRevision"].as_str().map(Revision::new))
                .or_else(|| content.as_u64().map(|n| Revision::new(&n.to_string())))
                .or(record.revision);
            self.settings.revision_form.apply(content);
        }
        let refusal = outcome.as_ref().err();
        let status = refusal.map_or(200, |refusal| refusal.status);
        self.enter(record, status, refusal, visit.hit);
        let request_id = self.next_request_id();
        reply::gateway(outcome, op, format, self.host(), request_id)
    }

    /// Whether the version of a record is there.
    fn holds(&self, record: &Record) -> bool {
        let (Some(name), Some(revision)) = (&record.routine, &record.revision) else {
            return false;
        };
        let routine = self.routine(name);
        routine.is_some_and(|routine| routine.version(revision).is_some())
    }

    fn execute(
        &mut self,
        call: &Call,
        operation: Option<Operation>,
        now: Now,
    ) -> Result<Value, Refusal> {
        self.gateway.authenticate(call, now.wall)?;
        if call.need("Version")? != VERSION {
            let message = format!("the only version is {VERSION}");
            return Err(Refusal::new(400, "InvalidVersion", message));
        }
        call.need("Action")?;
        let operation = operation.ok_or_else(|| {
            Refusal::new(
                404,
                "InvalidApi.NotFound",
                "the emulator has no such operation",
            )
        })?;
        let scope = self.settings.rate_scope;
        self.gateway.admit(operation.name(), scope, now.elapsed)?;
        match operation {
            Operation::CommitStagingRoutineCode => self.commit(call, now.wall),
            Operation::CreateRoutine => self.create(call, now.wall),
            Operation::DeleteRoutineCodeRevision => self.delete_revision(call),
            Operation::DescribeDcdnStagingIp => Ok(staging::addresses()),
            Operation::DescribeRoutine => self.describe(call),
            Operation::DescribeRoutineCodeRevision => self.describe_revision(call),
            Operation::DescribeRoutineUserInfo => Ok(self.describe_user()),
            Operation::PublishRoutineCodeRevision => self.publish_revision(call),
            Operation::UploadRoutineCode => self.upload(call, now.wall),
            Operation::UploadStagingRoutineCode => self.upload_staging(call, now.wall),
        }
    }

    fn create(&mut self, call: &Call, now: Timestamp) -> Result<Value, Refusal> {
        let name = call.need("Name")?;
        let name = RoutineName::new(name).map_err(Refusal::general)?;
        let description = call.get("Description").unwrap_or_default();
        if description.chars().count() > MAX_ROUTINE_DESCRIPTION {
            let cause = format!("a description has at most {MAX_ROUTINE_DESCRIPTION} characters");
            return Err(Refusal::general(cause));
        }
        let wishes: BTreeMap<String, EnvironmentWish> = call
            .get("EnvConf")
            .map_or_else(|| Ok(BTreeMap::new()), |text| json_of("EnvConf", text))?;
        if let Some(odd) = wishes
            .keys()
            .find(|env| !matches!(env.as_str(), "production" | "staging"))
        {
            let cause = format!("a new routine cannot have a configuration for {odd}");
            return Err(Refusal::general(cause));
        }
        self.create_routine(&name, description, now)?;
        for environment in &mut self.routine_mut(&name)?.environments {
            let Some(wish) = wishes.get(environment.name) else {
                continue;
            };
            if let Some(spec) = &wish.spec_name {
                environment.spec.clone_from(spec);
            }
            if let Some(hosts) = &wish.allowed_hosts {
                environment.allowed_hosts.clone_from(hosts);
            }
        }
        Ok(json!({"Status": "OK"}))
    }

    fn upload(&mut self, call: &Call, now: Timestamp) -> Result<Value, Refusal> {
        let name = routine_name(call)?;
        let description = self.description_of(call)?;
        let revision = self.begin_upload(&name, description, now)?;
        Ok(self.form(&name, &revision, &revision, description, now))
    }

    fn upload_staging(&mut self, call: &Call, now: Timestamp) -> Result<Value, Refusal> {
        let name = routine_name(call)?;
        let description = self.description_of(call)?;
        let (slot, told) = self.begin_staging(&name, description, now)?;
        Ok(self.form(&name, &slot, &told, description, now))
    }

    fn commit(&mut self, call: &Call, now: Timestamp) -> Result<Value, Refusal> {
        let name = routine_name(call)?;
        let description = self.description_of(call)?;
        let revision = self.commit_staging(&name, description, now)?;
        if self.settings.commit_is_bare {
            return Ok(json!(revision.number()));
        }
        Ok(json!({"CodeRevision": revision}))
    }

    fn description_of<'a>(&self, call: &'a Call) -> Result<&'a str, Refusal> {
        let description = call.need("CodeDescription")?;
        if self.settings.short_descriptions && description.chars().count() > MAX_DESCRIPTION {
            let message = format!("CodeDescription has more than {MAX_DESCRIPTION} characters");
            return Err(Refusal::new(400, "InvalidParameter", message));
        }
        Ok(description)
    }

    /// The answer to an upload: the form to post the code of `revision` with, and the revision that is named for it.
    fn form(
        &self,
        name: &RoutineName,
        revision: &Revision,
        told: &Revision,
        description: &str,
        now: Timestamp,
    ) -> Value {
        let life = self.settings.form_life;
        let ticket = form::Ticket {
            origin: &self.origin,
            routine: name,
            revision,
            stored_description: &self.store_text(description),
            expires: now.saturating_add(life).unwrap_or(Timestamp::MAX),
        };
        json!({"CodeRevision": told, "OssPostConfig": form::issue(&ticket)})
    }

    fn publish_revision(&mut self, call: &Call) -> Result<Value, Refusal> {
        let name = routine_name(call)?;
        let revision = selected(call)?;
        let environments: Vec<&str> = json_of("Envs", call.need("Envs")?)?;
        if environments.is_empty() {
            return Err(Refusal::general("Envs names no environment"));
        }
        self.set_live(&name, &revision, &environments)?;
        Ok(json!({"CodeRevision": revision}))
    }

    fn delete_revision(&mut self, call: &Call) -> Result<Value, Refusal> {
        let name = routine_name(call)?;
        let revision = selected(call)?;
        let routine = self
            .routine(&name)
            .ok_or_else(|| no_such_routine(name.as_str()))?;
        if routine.version(&revision).is_some() || !self.settings.delete_unknown_is_ok {
            self.removable(&name, &revision)?;
            if self.settings.delete_works {
                self.remove(&name, &revision)?;
            }
        }
        Ok(json!({"Status": "OK"}))
    }
}

impl Operation {
    const ALL: [Self; 10] = [
        Self::CommitStagingRoutineCode,
        Self::CreateRoutine,
        Self::DeleteRoutineCodeRevision,
        Self::DescribeDcdnStagingIp,
        Self::DescribeRoutine,
        Self::DescribeRoutineCodeRevision,
        Self::DescribeRoutineUserInfo,
        Self::PublishRoutineCodeRevision,
        Self::UploadRoutineCode,
        Self::UploadStagingRoutineCode,
    ];

    fn of(call: &Call) -> Option<Self> {
        let action = call.get("Action")?;
        Self::ALL
            .into_iter()
            .find(|operation| operation.name() == action)
    }

    fn name(self) -> &'static str {
        match self {
            Self::CommitStagingRoutineCode => COMMIT,
            Self::CreateRoutine => "CreateRoutine",
            Self::DeleteRoutineCodeRevision => "DeleteRoutineCodeRevision",
            Self::DescribeDcdnStagingIp => reply::STAGING_IPS,
            Self::DescribeRoutine => "DescribeRoutine",
            Self::DescribeRoutineCodeRevision => "DescribeRoutineCodeRevision",
            Self::DescribeRoutineUserInfo => "DescribeRoutineUserInfo",
            Self::PublishRoutineCodeRevision => "PublishRoutineCodeRevision",
            Self::UploadRoutineCode => "UploadRoutineCode",
            Self::UploadStagingRoutineCode => STAGE,
        }
    }
}

/// The names of all operations that are known.
pub(super) fn names() -> Vec<&'static str> {
    Operation::ALL.into_iter().map(Operation::name).collect()
}

/// The name under which a call is recorded.
pub(super) fn name_of(call: Option<&Call>) -> &'static str {
    call.and_then(Operation::of)
        .map_or(UNKNOWN, Operation::name)
}

/// What the record of a call holds whatever becomes of it; nothing is known of one that could not be read.
pub(super) fn record(call: Option<&Call>, visit: &Visit<'_>) -> Record {
    let operation = call.and_then(Operation::of);
    let text = |name: &str| call.and_then(|c| c.get(name));
    let mut record = visit.record(name_of(call));
    record.routine = text("Name").and_then(|name| RoutineName::new(name).ok());
    record.revision = text("SelectCodeRevision").map(Revision::new);
    record.nonce = text("SignatureNonce").map(str::to_owned);
    record.scheme = call.and_then(Call::scheme);
    match operation {
        Some(
            Operation::CommitStagingRoutineCode
            | Operation::UploadRoutineCode
            | Operation::UploadStagingRoutineCode,
        ) => {
            record.mark = text("CodeDescription").and_then(Mark::read);
        }
        Some(Operation::PublishRoutineCodeRevision) => {
            let environments = text("Envs").and_then(|envs| serde_json::from_str(envs).ok());
            record.environments = environments.unwrap_or_default();
        }
        _ => {}
    }
    record
}

/// A name that no routine can have belongs to none.
pub(super) fn routine_name(call: &Call) -> Result<RoutineName, Refusal> {
    let name = call.need("Name")?;
    RoutineName::new(name).map_err(|_| no_such_routine(name))
}

pub(super) fn selected(call: &Call) -> Result<Revision, Refusal> {
    call.need("SelectCodeRevision").map(Revision::new)
}

fn json_of<'a, T: Deserialize<'a>>(parameter: &str, text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|error| {
        let message = format!("{parameter} is not the JSON it must be: {error}");
        Refusal::new(400, "InvalidParameter", message)
    })
}

#[cfg(test)]
pub(super) mod tests;
