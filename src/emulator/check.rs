//! What no run of er-dev may ever do, judged by a history. Pure.
//!
//! [`check`] needs the history alone. What also depends on what er-dev said, kept or had on disk is in functions of
//! their own: [`untrue`], [`lost`] and [`unvaulted`]. Each rule has the number that a violation names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::gateway::CALLS_PER_SECOND;
use super::history::{
    Actor, Decision, PERSON_UPLOAD, POST_OBJECT, Record, busiest_second, nanoseconds,
};
use super::replay::{COMMIT, DELETE, Held, PUBLISH, Replay, STAGE, UPLOAD, Version};
use crate::routine::{Digest, Revision, RoutineName};

/// What may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotate {
    /// Any version, whoever made it.
    Any,
    /// Only versions with a mark.
    Own,
    /// None.
    Never,
}

/// What is asked of a run. The defaults are those of er-dev's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The most versions a routine may have.
    pub cap: usize,
    /// Slots that are free at rest.
    pub reserve: usize,
    /// How many of the newest versions with code are never deleted.
    pub keep_newest: usize,
    /// What may be deleted.
    pub rotate: Rotate,
    /// Whether the history ends at rest: nothing is under way, and the last edit was trimmed.
    pub at_rest: bool,
    /// Whether uploads of identical bytes were forced, so that several versions may hold them.
    pub forced: bool,
    /// Whether what was live before is never deleted either. A restart forgets what was seen before it, so this cannot
    /// be asked of every run.
    pub rollback: bool,
    /// What a person did less than this before a delete could not be seen by whoever sent it.
    pub round_trip: Duration,
    /// How long a client waits for an answer at least. After that time its request no longer counts as under way.
    pub patience: Duration,
    /// How many calls may be refused for a stale time stamp after the first reply: one for every process but the first,
    /// and one for each step of the service's clock.
    pub stale: usize,
    /// Versions that nobody may delete for a reason no history tells: pinned ones, and those with the present bytes.
    pub protected: BTreeSet<Revision>,
    /// How many deleted versions of a routine are kept on the client's side.
    pub vault_keeps: usize,
}

/// One thing that should not have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule, such as `I2`.
    pub rule: &'static str,
    /// The records that show it.
    pub records: Vec<u64>,
    /// What happened.
    pub text: String,
}

/// What er-dev said of an edit: this version holds code with a digest that begins so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The routine.
    pub routine: RoutineName,
    /// The version.
    pub revision: Revision,
    /// Hexadecimal digits of the digest, the first or all of them.
    pub sha256: String,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            cap: 10,
            reserve: 1,
            keep_newest: 3,
            rotate: Rotate::Any,
            at_rest: false,
            forced: false,
            rollback: false,
            round_trip: Duration::from_secs(1),
            patience: Duration::from_secs(1),
            stale: 0,
            protected: BTreeSet::new(),
            vault_keeps: 50,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)?;
        match self.records.as_slice() {
            [] => Ok(()),
            [one] => write!(f, " (record {one})"),
            many => {
                let many: Vec<String> = many.iter().map(u64::to_string).collect();
                write!(f, " (records {})", many.join(", "))
            }
        }
    }
}

/// Everything in a history that breaks a rule, in the order of the rules' numbers.
pub fn check(history: &[Record], rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut replay = Replay::default();
    for record in history {
        found.extend(too_many(record, rules));
        if record.op == DELETE && record.processed {
            let number = record.revision.as_ref().and_then(Revision::number);
            found.extend(emptied(record));
            if let Some((held, number)) = replay.of(record).zip(number) {
                found.extend(wrong_delete(record, held, number, rules));
            }
        }
        replay.apply(record);
        if record.op == DELETE && record.processed {
            found.extend(replay.of(record).and_then(|held| over_budget(record, held)));
        }
    }
    if rules.at_rest {
        for (name, held) in &replay.0 {
            found.extend(unrest(name, held, rules));
        }
    }
    found.extend(too_fast(history));
    found.extend(stale_or_repeated(history, rules));
    found.extend(overlaps(history, rules));
    found.sort_by_key(|violation| violation.rule[1..].parse::<u32>().unwrap_or(0));
    found
}

/// I4: what er-dev said to be stored and no record shows. Not to be asked where object storage lies.
pub fn untrue(history: &[Record], claims: &[Claim]) -> Vec<Violation> {
    let stores = |record: &Record, claim: &Claim| {
        matches!(record.op, POST_OBJECT | PERSON_UPLOAD)
            && record.processed
            && record.routine.as_ref() == Some(&claim.routine)
            && record.revision.as_ref() == Some(&claim.revision)
            && record
                .sha256
                .is_some_and(|digest| digest.hex().starts_with(&claim.sha256))
    };
    let untrue = |claim: &&Claim| !history.iter().any(|record| stores(record, claim));
    let told = |claim: &Claim| {
        violation(
            "I4",
            &[],
            format!(
                "version {} of {} never held {}, which it was said to hold",
                claim.revision, claim.routine, claim.sha256
            ),
        )
    };
    claims.iter().filter(untrue).map(told).collect()
}

/// I6: the last bytes of each routine's entry that no version at the end holds.
pub fn lost(history: &[Record], last: &[(RoutineName, Digest)]) -> Vec<Violation> {
    let mut replay = Replay::default();
    history.iter().for_each(|record| replay.apply(record));
    let is_lost = |(name, digest): &&(RoutineName, Digest)| {
        let held = replay.0.get(name);
        !held.is_some_and(|held| held.versions.values().any(|v| v.code == Some(*digest)))
    };
    let told = |(name, digest): &(RoutineName, Digest)| {
        let text = format!(
            "no version of {name} holds its last bytes, {}",
            digest.short()
        );
        violation("I6", &[], text)
    };
    last.iter().filter(is_lost).map(told).collect()
}

/// I13: the last bytes of each routine's entry that do not run on staging at the end.
pub fn unstaged(history: &[Record], last: &[(RoutineName, Digest)]) -> Vec<Violation> {
    let mut replay = Replay::default();
    history.iter().for_each(|record| replay.apply(record));
    let is_missing = |(name, digest): &&(RoutineName, Digest)| {
        let held = replay.0.get(name);
        held.is_none_or(|held| held.on_staging != Some(*digest))
    };
    let told = |(name, digest): &(RoutineName, Digest)| {
        let text = format!(
            "staging does not run the last bytes of {name}, {}",
            digest.short()
        );
        violation("I13", &[], text)
    };
    last.iter().filter(is_missing).map(told).collect()
}

/// I11: deletes by the client of versions that had code, of which nothing is kept. Of each routine only as many of its
/// newest deletes count as are kept.
pub fn unvaulted(
    history: &[Record],
    vaulted: &BTreeSet<Revision>,
    rules: &Rules,
) -> Vec<Violation> {
    let mut replay = Replay::default();
    let mut deletes: BTreeMap<&RoutineName, Vec<&Record>> = BTreeMap::new();
    for record in history {
        let version = version_of(&replay, record);
        if let (DELETE, true, Some(name)) = (record.op, record.processed, &record.routine)
            && version.is_some_and(|version| version.code.is_some())
        {
            deletes.entry(name).or_default().push(record);
        }
        replay.apply(record);
    }
    let mut found = Vec::new();
    for (name, deletes) in deletes {
        for record in deletes.iter().rev().take(rules.vault_keeps).rev() {
            if let Some(revision) = record.revision.as_ref().filter(|r| !vaulted.contains(r)) {
                let text = format!("version {revision} of {name} was deleted and is not kept");
                found.push(violation("I11", &[record], text));
            }
        }
    }
    found
}

fn version_of<'a>(replay: &'a Replay, record: &Record) -> Option<&'a Version> {
    let number = record.revision.as_ref()?.number()?;
    replay.of(record)?.versions.get(&number)
}

/// I1: more versions than there are slots.
fn too_many(record: &Record, rules: &Rules) -> Option<Violation> {
    let (slots, name) = record.slots.zip(record.routine.as_ref())?;
    (slots > rules.cap).then(|| {
        let text = format!("{name} has {slots} versions, more than {}", rules.cap);
        violation("I1", &[record], text)
    })
}

/// I3: the staging slot is no version, and not the client's to delete.
fn emptied(record: &Record) -> Option<Violation> {
    let slot = record.revision.as_ref().filter(|r| r.is_staging());
    slot.map(|_| violation("I3", &[record], "the staging slot was deleted".into()))
}

/// I2 and I3: a delete of what should have stayed. `held` is how things were just before.
fn wrong_delete(record: &Record, held: &Held, number: u64, rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut tell = |rule, why: &str| {
        let name = record.routine.as_ref().map_or("", RoutineName::as_str);
        let text = format!("version {number} of {name} was deleted {why}");
        found.push(violation(rule, &[record], text));
    };
    let unseen = |when: &u64| record.ended.saturating_sub(*when) < nanoseconds(rules.round_trip);
    if record.live && !held.published.get(&number).is_some_and(unseen) {
        tell("I2", "while it was live");
    }
    let version = held.versions.get(&number).cloned().unwrap_or_default();
    // What a person has just taken away still was among the newest for whoever sent the delete.
    let just_gone = held
        .deleted_by_person
        .iter()
        .filter(|(_, when)| unseen(when));
    let with_code = held.versions.iter().filter(|(_, v)| v.code.is_some());
    let mut newest: Vec<u64> = with_code.map(|(n, _)| *n).collect();
    newest.extend(just_gone.map(|(n, _)| *n));
    newest.sort_unstable_by(|a, b| b.cmp(a));
    newest.truncate(rules.keep_newest);
    if newest.contains(&number) {
        let why = format!("though it is among the newest {}", rules.keep_newest);
        tell("I3", &why);
    }
    match rules.rotate {
        Rotate::Any => {}
        Rotate::Own if version.mark.is_some() => {}
        Rotate::Own => tell("I3", "though er-dev did not make it"),
        Rotate::Never => tell("I3", "though nothing may be deleted"),
    }
    if rules.rollback && held.was_live.values().any(|n| *n == number) {
        tell("I3", "though it was live before the present version");
    }
    if record
        .revision
        .as_ref()
        .is_some_and(|revision| rules.protected.contains(revision))
    {
        tell("I3", "though it is protected");
    }
    found
}

/// I10: more deletes than uploads explain.
fn over_budget(record: &Record, held: &Held) -> Option<Violation> {
    let allowed = held.uploads + held.uploads_by_people + 1;
    (held.deletes == allowed + 1 && record.processed).then(|| {
        let text = format!(
            "{} versions of use were deleted after {} uploads by er-dev and {} by others",
            held.deletes, held.uploads, held.uploads_by_people
        );
        violation("I10", &[record], text)
    })
}

/// I5 and I12: what is left at rest.
fn unrest(name: &RoutineName, held: &Held, rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut by_digest: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (number, version) in &held.versions {
        if let Some(mark) = &version.mark {
            let same = by_digest.entry(&mark.digest).or_default();
            same.push(number.to_string());
        }
    }
    for (digest, numbers) in by_digest {
        if numbers.len() > 1 && !rules.forced {
            let text = format!(
                "versions {} of {name} were all made of {}",
                numbers.join(", "),
                &digest[..8]
            );
            found.push(violation("I5", &[], text));
        }
    }
    let allowed = rules.cap.saturating_sub(rules.reserve);
    let trimmed = held.newest_is_the_clients && !held.delete_failed;
    if held.slots() <= allowed || !trimmed || rules.rotate == Rotate::Never {
        return found;
    }
    let with_code = held.versions.iter().filter(|(_, v)| v.code.is_some());
    let newest: Vec<u64> = with_code
        .map(|(n, _)| *n)
        .rev()
        .take(rules.keep_newest)
        .collect();
    let stays = |number: u64, version: &Version| {
        newest.contains(&number)
            || held.live.values().any(|n| *n == number)
            || held.was_live.values().any(|n| *n == number)
            || rules.rotate == Rotate::Own && version.mark.is_none()
            || rules.protected.iter().any(|r| r.number() == Some(number))
    };
    if let Some((number, _)) = held.versions.iter().find(|(n, v)| !stays(**n, v)) {
        let text = format!(
            "{name} rests with {} versions, more than {allowed}, though {number} may go",
            held.slots()
        );
        found.push(violation("I12", &[], text));
    }
    found
}

/// I7: too many API requests in one second.
fn too_fast(history: &[Record]) -> Option<Violation> {
    let most = busiest_second(history);
    (most >= CALLS_PER_SECOND).then(|| {
        let text = format!("{most} API requests came in one second");
        violation("I7", &[], text)
    })
}

/// I8: nonces that were used before, and time stamps that went stale although the service's clock was known.
fn stale_or_repeated(history: &[Record], rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut nonces: BTreeMap<&str, &Record> = BTreeMap::new();
    for record in history {
        let Some(nonce) = &record.nonce else {
            continue;
        };
        if let Some(first) = nonces.insert(nonce, record) {
            let text = "a nonce was used twice".to_owned();
            found.push(violation("I8", &[first, record], text));
        }
    }
    let replied = |record: &&Record| record.actor == Actor::Client && record.status != 0;
    let first_reply = history
        .iter()
        .filter(replied)
        .map(|record| record.ended)
        .min();
    let stale: Vec<&Record> = history
        .iter()
        .filter(|record| record.decision == Decision::Refused)
        .filter(|record| {
            let code = record.code.as_deref().unwrap_or_default();
            code.starts_with("InvalidTimeStamp") && first_reply.is_some_and(|t| record.t > t)
        })
        .collect();
    if stale.len() > rules.stale {
        let text = "a time stamp was stale although the service's clock was known".to_owned();
        found.push(violation("I8", &stale, text));
    }
    found
}

/// I9: two requests that change one routine at the same time. One that a fault leaves under way after its client has
/// given up is no writer any more.
fn overlaps(history: &[Record], rules: &Rules) -> Vec<Violation> {
    let mut by_routine: BTreeMap<&RoutineName, Vec<&Record>> = BTreeMap::new();
    for record in history {
        let changes = matches!(
            record.op,
            UPLOAD | STAGE | COMMIT | DELETE | PUBLISH | POST_OBJECT
        );
        let counts = changes && record.processed && !is_left_behind(record);
        if let Some(name) = record.routine.as_ref().filter(|_| counts) {
            by_routine.entry(name).or_default().push(record);
        }
    }
    let patience = nanoseconds(rules.patience);
    let mut found = Vec::new();
    for (name, mut records) in by_routine {
        records.sort_by_key(|record| record.t);
        for pair in records.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            if second.t < first.ended.min(first.t.saturating_add(patience)) {
                let text = format!("two requests changed {name} at the same time");
                found.push(violation("I9", &[first, second], text));
            }
        }
    }
    found
}

/// Whether a fault carried the request out when its client had given it up or was gone.
fn is_left_behind(record: &Record) -> bool {
    let fault = record.fault.as_deref().unwrap_or_default();
    let is_late_kill = fault.starts_with("kill(") && fault.contains("late");
    fault.starts_with("process_late") || is_late_kill
}

fn violation(rule: &'static str, records: &[&Record], text: String) -> Violation {
    Violation {
        rule,
        records: records.iter().map(|record| record.seq).collect(),
        text,
    }
}

#[cfg(test)]
mod tests;
