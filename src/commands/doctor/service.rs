//! What can be told of the service: the way to it, and what it says when it is asked for what changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;

use crate::cli::Common;
use crate::cloud::credentials::keys::Keys;
use crate::cloud::error::{Class, CloudError};
use crate::cloud::{Authorities, Cloud, Timeouts};
use crate::config::{Config, Rotate, Upload};
use crate::report::words::{age, escape, span};
use crate::revision::deploy::{Session, Settings, age_of};
use crate::revision::vault::Vaults;
use crate::routine::{Revision, RoutineName};
use crate::state::StateDir;

use super::super::{Failure, env};
use super::{Check, Verdict};

/// How long the service may take in all. With what else is looked at, it makes less than five seconds.
const PATIENCE: Duration = Duration::from_millis(2_400);

/// How long one answer may take, so that it is told what happened instead of one.
const ANSWER: Duration = Duration::from_secs(2);

/// What helps where the service cannot be reached.
const CHECK_NETWORK: &str = "check the network and `endpoint`";

/// How far the clock may be off before requests are refused, by the stricter one of the service's own pages.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// What the service's clock and this one may differ by without a word: it is told in whole seconds.
const NEAR: Duration = Duration::from_secs(5);

/// The operations that only somebody can try who wants their effect.
const CHANGING: [&str; 6] = [
    "UploadRoutineCode",
    "UploadStagingRoutineCode",
    "CommitStagingRoutineCode",
    "DeleteRoutineCodeRevision",
    "PublishRoutineCodeRevision",
    "CreateRoutine",
];

/// Where requests go, and how: nothing is asked for that.
pub(super) fn way(
    config: &Config,
    common: &Common,
    authorities: &Result<Authorities, Failure>,
) -> Vec<Check> {
    let endpoint = &config.service.endpoint;
    let proxy = match Cloud::proxy_of(endpoint) {
        Some(proxy) => Check::new(
            "proxy",
            Verdict::Note,
            format!("requests go through {proxy}"),
        ),
        None if endpoint.loopback => Check::new(
            "proxy",
            Verdict::Ok,
            "none, since the endpoint is this machine",
        ),
        None => Check::new("proxy", Verdict::Ok, "none is set for the endpoint"),
    };
    let trusted = match (authorities, &common.ca_file) {
        (Err(failure), _) => Check::wrong("trust", &failure.text),
        (Ok(_), None) if endpoint.url.starts_with("http:") => {
            let reason = "plain http, which is for this machine only";
            Check::new("trust", Verdict::Note, reason)
        }
        (Ok(_), None) => Check::new("trust", Verdict::Ok, "the system's certificate authorities"),
        (Ok(more), Some(file)) => {
            let (count, file) = (more.count(), file.display());
            let reason = format!("besides the system's certificate authorities, {count} of {file}");
            Check::new("trust", Verdict::Note, reason)
        }
    };
    vec![proxy, trusted]
}

/// Everything that the service has to be asked for.
pub(super) async fn asked(
    common: &Common,
    config: &Config,
    keys: Option<Keys>,
    authorities: Authorities,
) -> Vec<Check> {
    let Some(keys) = keys else {
        let reason = "nothing was asked without a key, or without knowing whom to trust";
        return vec![Check::new("service", Verdict::Unknown, reason)];
    };
    match ask(common, config, keys, authorities).await {
        Ok(checks) => checks,
        Err(why) => vec![Check::new("service", Verdict::Unknown, why)],
    }
}

async fn ask(
    common: &Common,
    config: &Config,
    keys: Keys,
    authorities: Authorities,
) -> Result<Vec<Check>, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    // Where there is no state directory, nobody shares the budget of requests, and none is made for this.
    let own = tempfile::TempDir::with_prefix("er-dev-").map_err(|error| words(&error))?;
    let state = usable_state(common)
        .map_or_else(|| StateDir::open(own.path()), |path| StateDir::open(&path));
    let state = state.map_err(|error| words(&error))?;
    let timeouts = Timeouts {
        api: common.api_timeout.min(ANSWER),
        post: common.post_timeout,
    };
    let cloud = Cloud::new(
        &config.service,
        Arc::new(keys),
        config.limits,
        &state.budget(),
        timeouts,
        authorities,
    );
    let cloud = Arc::new(cloud.map_err(|error| words(&error))?);
    let settings = Arc::new(Settings::new(
        &config.revisions,
        state.instance(),
        common.lock_wait,
        timeouts,
        common.settle_margin,
        Vaults::new(state.path()),
    ));
    let mut listing = JoinSet::new();
    for routine in &config.routines {
        let dir = state.routine(&config.service.endpoint, &routine.name);
        let dir = dir.map_err(|error| words(&error))?;
        let mut session = Session::new(cloud.clone(), settings.clone(), routine.clone(), dir);
        listing.spawn(async move {
            let listed = session.list().await.map(|_| ());
            (session, listed)
        });
    }
    let mut answers = Answers::default();
    let begun = std::time::Instant::now();
    let all = async {
        while let Some(joined) = listing.join_next().await {
            let (session, listed) = match joined {
                Ok(answered) => answered,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            answers.took.get_or_insert_with(|| begun.elapsed());
            let name = session.routine().name.clone();
            answers.listed.insert(name, (session, listed));
        }
        if let Some((session, revision)) = answers.a_version() {
            let read = session.fetch(&revision).await;
            answers.read = Some(read.map(|_| ()));
        }
    };
    // What has not answered by then is unknown.
    let _ = tokio::time::timeout(PATIENCE, all).await;
    Ok(answers.checks(config, &cloud))
}

/// The state directory, if it is there and may be used.
fn usable_state(common: &Common) -> Option<PathBuf> {
    let path = match &common.state_dir {
        Some(path) => Some(path.clone()),
        None => StateDir::usual(&env).ok(),
    };
    path.filter(|path| StateDir::examine(path).is_ok())
}

type Answer = Result<(), CloudError>;

#[derive(Default)]
struct Answers {
    listed: BTreeMap<RoutineName, (Session, Answer)>,
    /// Whether the code of a version could be read.
    read: Option<Answer>,
    /// How long the first answer took.
    took: Option<Duration>,
}

impl Answers {
    /// Some version whose code can be asked for.
    fn a_version(&self) -> Option<(&Session, Revision)> {
        self.listed.values().find_map(|(session, _)| {
            let listing = session.knowledge().listing()?;
            let numbered = |it: &&crate::cloud::Listed| it.revision.number().is_some();
            let some = listing.revisions.iter().find(numbered)?;
            Some((session, some.revision.clone()))
        })
    }

    fn checks(&self, config: &Config, cloud: &Cloud) -> Vec<Check> {
        let mut checks = vec![self.endpoint(config), clock(cloud)];
        checks.extend(self.permissions(config));
        let routines = config.routines.iter();
        checks.extend(routines.map(|routine| {
            let check = match self.listed.get(&routine.name) {
                None => Check::new("routine", Verdict::Unknown, "no answer in time"),
                Some((session, Ok(()))) => slots(session),
                Some((_, Err(error))) => unlisted(error, routine.create),
            };
            check.about(routine.name.as_str())
        }));
        checks
    }

    fn errors(&self) -> impl Iterator<Item = &CloudError> {
        self.listed
            .values()
            .filter_map(|(_, answer)| answer.as_ref().err())
    }

    fn endpoint(&self, config: &Config) -> Check {
        let url = &config.service.endpoint.url;
        // The service has more than one way to say that there is no such routine.
        let answered =
            |error: &&CloudError| error.request_id.is_some() || error.class == Class::Gone;
        let is_there = self.listed.values().any(|(_, answer)| answer.is_ok())
            || self.errors().any(|error| answered(&error));
        let check = match (is_there, self.errors().next()) {
            (true, _) => {
                let took = self.took.unwrap_or_default().as_millis();
                Check::new("service", Verdict::Ok, format!("it answers, in {took} ms"))
            }
            (false, Some(error)) => {
                let check = Check::new("service", Verdict::Bad, error.to_string());
                // What becomes of a request without an answer is no matter here.
                match error.class {
                    Class::Ambiguous if !error.answered => check.cure(CHECK_NETWORK),
                    _ => check.cure(error.help()),
                }
            }
            (false, None) => {
                let within = PATIENCE.as_millis();
                Check::new(
                    "service",
                    Verdict::Bad,
                    format!("no answer within {within} ms"),
                )
                .cure(CHECK_NETWORK)
            }
        };
        check.about(url)
    }

    /// What the key may do, as far as doing it changes nothing.
    fn permissions(&self, config: &Config) -> Vec<Check> {
        let mut listed: Option<&Answer> = None;
        for (_, answer) in self.listed.values() {
            if listed.is_none() || answer.is_ok() {
                listed = Some(answer);
            }
        }
        let reading = [
            ("DescribeRoutine", listed),
            ("DescribeRoutineCodeRevision", self.read.as_ref()),
        ];
        let reading = reading.into_iter().map(|(operation, answer)| {
            let check = match answer {
                Some(Ok(())) => Check::new("permission", Verdict::Ok, "allowed"),
                Some(Err(error)) if error.class == Class::Gone => {
                    Check::new("permission", Verdict::Ok, "allowed")
                }
                Some(Err(error)) if error.is_permission() => {
                    Check::new("permission", Verdict::Bad, error.to_string()).cure(error.help())
                }
                Some(Err(error)) => {
                    let reason = format!("it did not come to that: {error}");
                    Check::new("permission", Verdict::Unknown, reason)
                }
                None => Check::new(
                    "permission",
                    Verdict::Unknown,
                    "there was nothing to try it on",
                ),
            };
            check.about(format!("dcdn:{operation}"))
        });
        let changing = CHANGING.into_iter().map(|operation| {
            let needed = match operation {
                "DeleteRoutineCodeRevision" => config.revisions.rotate != Rotate::Never,
                "UploadStagingRoutineCode" | "CommitStagingRoutineCode" => {
                    let mut uploads = config.routines.iter().map(|routine| routine.upload);
                    uploads.any(|upload| upload == Upload::Staging)
                }
                "CreateRoutine" => config.routines.iter().any(|routine| routine.create),
                _ => true,
            };
            let check = match needed {
                true => Check::new("permission", Verdict::Unknown, "only trying it would tell"),
                false => Check::new(
                    "permission",
                    Verdict::Note,
                    "not needed by this configuration",
                ),
            };
            check.about(format!("dcdn:{operation}"))
        });
        reading.chain(changing).collect()
    }
}

fn clock(cloud: &Cloud) -> Check {
    let Some(offset) = cloud.clock_seen() else {
        return Check::new(
            "clock",
            Verdict::Unknown,
            "the service did not tell its time",
        );
    };
    let side = if offset.behind { "behind" } else { "ahead of" };
    let reason = format!("{} {side} the service's", span(offset.by));
    let cure = "set this machine's clock, for example with `timedatectl set-ntp true`";
    match offset.by {
        by if by <= NEAR => Check::new("clock", Verdict::Ok, "as the service's, to some seconds"),
        by if by <= SKEW => Check::new("clock", Verdict::Note, reason).cure(cure),
        _ => Check::new("clock", Verdict::Bad, reason).cure(cure),
    }
}

/// A routine that is there: its slots, and what would go next.
fn slots(session: &Session) -> Check {
    let Some(listing) = session.knowledge().listing() else {
        return Check::new("routine", Verdict::Unknown, "it was not listed");
    };
    if let Some((environment, gone)) = listing.dangling().first() {
        let (environment, gone) = (escape(environment), escape(gone.as_str()));
        let reason = format!("{environment} points at {gone}, which is not there");
        let name = &session.routine().name;
        let cure = format!("`er-dev publish {name} --env {environment}` puts another version live");
        return Check::new("routine", Verdict::Bad, reason).cure(cure);
    }
    let (used, cap) = (listing.revisions.len(), session.policy().cap);
    let slots = format!("{used} of {cap} slots taken");
    let protected = session.knowledge().protected();
    match session.policy().victim(listing, protected) {
        Ok(Some(next)) => {
            let age = age_of(&next.revision, SystemTime::now()).map(age);
            let age = age.map(|age| format!(" ({age})")).unwrap_or_default();
            let next = escape(next.revision.as_str());
            Check::new(
                "routine",
                Verdict::Ok,
                format!("{slots}, {next}{age} goes next"),
            )
        }
        Ok(None) if used >= cap => {
            let reason = format!("{slots}, and none of them may go: the next edit waits");
            let help = "see why with `er-dev revisions`, and unpin or delete one";
            Check::new("routine", Verdict::Bad, reason).cure(help)
        }
        Ok(None) => Check::new("routine", Verdict::Ok, format!("{slots}, none may go")),
        Err(refusal) => {
            let reason = format!("{slots}, and nothing is deleted: {refusal}");
            Check::new("routine", Verdict::Note, reason)
        }
    }
}

fn unlisted(error: &CloudError, create: bool) -> Check {
    match error.class {
        Class::Gone if create => Check::new(
            "routine",
            Verdict::Ok,
            "not there yet; the first edit makes it",
        ),
        Class::Gone => Check::new("routine", Verdict::Bad, error.to_string()).cure(error.help()),
        _ if error.request_id.is_some() => {
            Check::new("routine", Verdict::Bad, error.to_string()).cure(error.help())
        }
        _ => Check::new("routine", Verdict::Unknown, error.to_string()),
    }
}
