//! The operations of the API that only tell something: what is there, in the documented JSON.
//!
//! The shapes are those of the vendor's XML samples, and like there the versions of a routine come in no order of any
//! use. They are the only ones that a lag of the service shows in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::gateway::Call;
use super::operations::{routine_name, selected};
use super::reply::{self, Refusal};
use super::routines::{
    ENVIRONMENTS, RoutineState, Version, no_such_revision, no_such_routine, read_text,
};
use super::switches::EnvConf;
use super::world::World;
use crate::routine::Revision;

/// What is left of a description under `desc_mangle=on`, in characters.
const MANGLED: usize = 20;

impl World {
    pub(super) fn describe(&self, call: &Call) -> Result<Value, Refusal> {
        let name = routine_name(call)?;
        let Some(routine) = self.told(&name) else {
            return self.missing(name.as_str());
        };
        let mut versions: Vec<&Version> = routine.versions();
        versions.sort_by_key(|version| version.revision.number().map(u64::reverse_bits));
        let mut content = json!({
            "CreationTime": routine.created.to_string(),
            "Description": self.store_text(&routine.description),
            "Envs": ENVIRONMENTS,
            "EnvConf": environment_map(routine),
            "CodeRevs": versions.into_iter().map(|version| json!({
                "CodeRevision": version.revision,
                "CreationTime": creation_time(version),
                "CodeDescription": self.told_description(version),
            })).collect::<Vec<Value>>(),
        });
        match self.settings.envconf {
            EnvConf::Full => {}
            EnvConf::Partial => {
                if let Some(environments) = content["EnvConf"].as_object_mut() {
                    environments.remove("production");
                }
            }
            EnvConf::Missing => {
                if let Some(fields) = content.as_object_mut() {
                    fields.remove("EnvConf");
                }
            }
            EnvConf::Null => content["EnvConf"] = Value::Null,
        }
        Ok(content)
    }

    /// Without code the call still succeeds: what it then tells as code is the error page that object storage gave
    /// for the missing object.
    pub(super) fn describe_revision(&mut self, call: &Call) -> Result<Value, Refusal> {
        let name = routine_name(call)?;
        let revision = selected(call)?;
        let request_id = self.next_request_id();
        let Some(routine) = self.told(&name) else {
            return self.missing(name.as_str());
        };
        let readable = self.settings.staging_is_readable || !revision.is_staging();
        let version = routine
            .version(&revision)
            .filter(|_| readable)
            .ok_or_else(|| no_such_revision(&revision))?;
        let code = match version.bytes() {
            Some(bytes) => STANDARD.encode(bytes),
            None => {
                let missing = Refusal::new(404, "NoSuchKey", "the specified key does not exist");
                STANDARD.encode(reply::storage_error(&missing, self.host(), &request_id))
            }
        };
        Ok(json!({"CreationTime": creation_time(version), "ErCode": code}))
    }

    pub(super) fn describe_user(&self) -> Value {
        let routines: Vec<Value> = self
            .routines
            .iter()
            .map(|(name, routine)| {
                json!({
                    "RoutineName": name,
                    "Description": self.store_text(&routine.description),
                    "CreationTime": routine.created.to_string(),
                })
            })
            .collect();
        json!({"Routines": routines, "Subdomains": []})
    }

    /// How a routine that is not there is described.
    fn missing(&self, name: &str) -> Result<Value, Refusal> {
        if self.settings.content_missing {
            return Ok(Value::Null);
        }
        Err(no_such_routine(name))
    }

    fn told_description(&self, version: &Version) -> String {
        if !self.settings.mangled_descriptions {
            return version.stored_description.clone();
        }
        let text = read_text(&version.stored_description);
        self.store_text(&text.chars().take(MANGLED).collect::<String>())
    }
}

fn environment_map(routine: &RoutineState) -> Value {
    let entries = routine.environments.iter().map(|environment| {
        let live = environment.live.as_ref().map_or("", Revision::as_str);
        let entry = json!({
            "SpecName": environment.spec,
            "CodeRev": live,
            "AllowedHosts": environment.allowed_hosts,
        });
        (environment.name.to_owned(), entry)
    });
    Value::Object(entries.collect::<Map<String, Value>>())
}

/// In whole seconds, as the service tells it of a version.
fn creation_time(version: &Version) -> String {
    let made = version
        .created()
        .map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    made.unwrap_or_default()
}
