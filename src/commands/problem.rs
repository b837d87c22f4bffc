//! Errors of all rooms in the words of the report, and what they mean for the next try.

use std::time::Duration;

use crate::clock;
use crate::cloud::error::{Class as CloudClass, CloudError, KEY_CHANGED};
use crate::cloud::form::OPERATION;
use crate::nearest::nearest;
use crate::pipeline::schedule::{Again, Reach};
use crate::report::class::Class;
use crate::report::{Also, Frame, Problem};
use crate::revision::deploy::{DeployError, Unpublishable};
use crate::revision::lock::LockError;
use crate::revision::protocol::Blocked;
use crate::revision::rotation::Stays;
use crate::routine::{Revision, RoutineName};
use crate::watch::source::SourceError;
use crate::watch::syntax::{Caution, Place};

/// The pause before the next try where somebody has to do something first.
const PROBE: Duration = Duration::from_secs(300);

/// The pause before the next try where a slot has to become free.
const SLOT_PROBE: Duration = Duration::from_secs(60);

/// How often a refusal in unknown words is tried.
const UNKNOWN_TRIES: u32 = 4;

/// A file that cannot go up, by the name people gave it.
pub(super) fn of_source(error: &SourceError, shown: &str) -> Problem {
    let (what, frame) = match error {
        SourceError::Syntax { error, .. } => {
            let also = error.also.iter().map(|fault| Also {
                what: fragment(&fault.message),
                frame: frame(&fault.place, shown),
            });
            let frame = Frame {
                also: also.collect(),
                unshown: error.unshown,
                ..frame(&error.place, shown)
            };
            (fragment(&error.message), Some(frame))
        }
        SourceError::Secret { secret, .. } => {
            let frame = Frame {
                file: shown.to_owned(),
                line: secret.line,
                column: secret.column,
                width: 1,
                text: None,
                cut: 0,
                also: Vec::new(),
                unshown: 0,
            };
            (format!("{} stands in the code", secret.what), Some(frame))
        }
        other => (other.to_string(), None),
    };
    let class = match error {
        SourceError::Missing { .. } => Class::Absent,
        SourceError::Empty { .. } => Class::Empty,
        _ => Class::Source,
    };
    Problem {
        what,
        help: fragment(&error.help()),
        class,
        operation: None,
        request_id: None,
        frame: frame.map(Box::new),
    }
}

/// Something to say of code that goes up all the same.
pub(super) fn of_caution(caution: &Caution, shown: &str) -> Problem {
    Problem {
        what: caution.message.into(),
        help: caution.help.into(),
        class: Class::Source,
        operation: None,
        request_id: None,
        frame: caution
            .place
            .as_ref()
            .map(|place| Box::new(frame(place, shown))),
    }
}

fn frame(place: &Place, shown: &str) -> Frame {
    Frame {
        file: shown.to_owned(),
        line: place.line,
        column: place.column,
        width: place.width,
        text: Some(place.text.clone()),
        cut: place.cut,
        also: Vec::new(),
        unshown: 0,
    }
}

/// The parser's sentence as a fragment that reads on, like every other message.
fn fragment(sentence: &str) -> String {
    let mut chars = sentence.chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

/// A request that did not succeed.
pub(super) fn of_cloud(error: &CloudError) -> Problem {
    let class = match error.class {
        CloudClass::NotSent => Class::Network,
        CloudClass::Ambiguous => Class::InDoubt,
        CloudClass::Throttled => Class::Throttled,
        CloudClass::Clock => Class::Clock,
        CloudClass::Credentials => Class::Credentials,
        CloudClass::Quota => Class::Slots,
        CloudClass::Gone => Class::Missing,
        CloudClass::FormExpired | CloudClass::Permanent => Class::Refused,
        CloudClass::UnknownServer => Class::Service,
    };
    Problem {
        what: error.to_string(),
        help: error.help(),
        class,
        operation: Some(error.operation),
        request_id: error.request_id.clone(),
        frame: None,
    }
}

/// A deploy that ended early.
pub(super) fn of_deploy(error: &DeployError, routine: &RoutineName) -> Problem {
    let (class, help) = match error {
        DeployError::Cloud(error) => return of_cloud(error),
        DeployError::Blocked(Blocked::AllProtected(all)) => {
            return Problem {
                what: error.to_string(),
                help: what_frees_a_slot(routine, all),
                class: Class::Slots,
                operation: None,
                request_id: None,
                frame: None,
            };
        }
        DeployError::Unpublishable(Unpublishable::NoEnvironment { name, known }) => {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let help = match nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "take one of these; upper and lower case count".into(),
            };
            return Problem {
                what: error.to_string(),
                help,
                class: Class::Usage,
                operation: None,
                request_id: None,
                frame: None,
            };
        }
        DeployError::Blocked(Blocked::OtherBytes(_) | Blocked::StillListed(_)) => (
            Class::Service,
            "look at `er-dev revisions`; it is looked at again every few minutes, and when the file is saved",
        ),
        DeployError::Blocked(Blocked::Fruitless) => (
            Class::Service,
            "nothing to do: it is tried again in a while",
        ),
        DeployError::Blocked(_) => (
            Class::Slots,
            "look at `er-dev revisions`, which says why nothing goes; deleting a version by hand makes room, too",
        ),
        DeployError::Lock(LockError::Held(_)) => (
            Class::Locked,
            "wait for the other er-dev, or raise `--lock-wait`",
        ),
        DeployError::Lock(LockError::Io { .. }) => (
            Class::State,
            "make room in the state directory, or give another one with `--state-dir DIR`",
        ),
        DeployError::Unsettled(_) => (
            Class::InDoubt,
            "nothing to do: the versions are listed as soon as it must have settled",
        ),
        DeployError::Unpublishable(error) => (
            match error {
                Unpublishable::NotShown { .. } => Class::InDoubt,
                Unpublishable::Unknown(_) => Class::Service,
                _ => Class::Refused,
            },
            match error {
                Unpublishable::NotShown { .. } | Unpublishable::Changed { .. } => {
                    "look at `er-dev revisions` and publish again; doing so twice does no harm"
                }
                Unpublishable::Unknown(_) => {
                    "try again later, or look at the console of the service"
                }
                _ => "choose another one; `er-dev revisions` shows them all",
            },
        ),
        DeployError::Uncommittable(_) => {
            return Problem {
                what: error.to_string(),
                help: format!(
                    "`er-dev push {routine}` puts the file on staging, where it says upload = \"staging\"; then commit it"
                ),
                class: Class::Refused,
                operation: None,
                request_id: None,
                frame: None,
            };
        }
        DeployError::Endless(_) => (
            Class::Service,
            "look at `er-dev revisions`, then save the file again",
        ),
    };
    Problem {
        what: error.to_string(),
        help: help.into(),
        class,
        operation: None,
        request_id: None,
        frame: None,
    }
}

/// What would free a slot where each version has a reason to stay: a way for each reason that somebody can do something
/// about.
fn what_frees_a_slot(routine: &RoutineName, all: &[(Revision, Stays)]) -> String {
    let mut ways = Vec::new();
    let pinned = all.iter().filter(|(_, stays)| *stays == Stays::Pinned);
    let others = match pinned.count() {
        0 | 1 => String::new(),
        pins => format!(" (or another one of the {pins} that are pinned)"),
    };
    let mut unpinned = false;
    for (revision, stays) in all {
        let way = match stays {
            Stays::Pinned if std::mem::replace(&mut unpinned, true) => continue,
            Stays::Pinned => format!("`er-dev unpin {routine} {revision}`{others}"),
            Stays::PinnedByPattern => "a narrower `pin`".into(),
            // What was live before is so no more when something else is published.
            Stays::WasLive(environment) => format!(
                "publishing another version to {environment}, which frees {}",
                revision.short()
            ),
            Stays::Newest => "a lower `keep_newest`".into(),
            Stays::Foreign => "`rotate = \"any\"`".into(),
            Stays::Live(_) | Stays::Present | Stays::Unnumbered | Stays::Spared(_) => continue,
        };
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    ways.push("deleting a version by hand".into());
    format!("a slot is freed by {}", ways.join(", or by "))
}

/// When another try of a deploy makes sense.
pub(super) fn again(error: &DeployError) -> Again {
    match error {
        DeployError::Cloud(error) => of_class(error),
        DeployError::Blocked(Blocked::OtherBytes(_) | Blocked::StillListed(_)) => {
            Again::Later(PROBE)
        }
        DeployError::Blocked(Blocked::AllProtected(_)) => Again::Growing(SLOT_PROBE),
        DeployError::Blocked(_) => Again::Later(SLOT_PROBE),
        DeployError::Lock(_) => Again::Soon(Duration::ZERO),
        DeployError::Unpublishable(_) | DeployError::Uncommittable(_) => Again::Later(SLOT_PROBE),
        DeployError::Unsettled(until) => Again::After(until.since(clock::now())),
        DeployError::Endless(_) => Again::FewTimes(UNKNOWN_TRIES),
    }
}

fn of_class(error: &CloudError) -> Again {
    match error.class {
        CloudClass::Credentials if error.key_changed => Again::Soon(Duration::ZERO),
        CloudClass::NotSent
        | CloudClass::Ambiguous
        | CloudClass::Throttled
        | CloudClass::FormExpired => Again::Soon(error.retry_after.unwrap_or_default()),
        CloudClass::Credentials | CloudClass::Gone | CloudClass::Clock => Again::Later(PROBE),
        CloudClass::Quota => Again::Later(SLOT_PROBE),
        CloudClass::Permanent => Again::Never,
        CloudClass::UnknownServer => Again::FewTimes(UNKNOWN_TRIES),
    }
}

/// What a deploy that ended early says of the service as a whole.
pub(super) fn reach(error: &DeployError) -> Reach {
    let error = match error {
        DeployError::Cloud(error) => error,
        // Both are said after a look of the same pass only.
        DeployError::Blocked(_)
        | DeployError::Endless(_)
        | DeployError::Unpublishable(_)
        | DeployError::Uncommittable(_) => return Reach::Answered,
        DeployError::Lock(_) | DeployError::Unsettled(_) => return Reach::Unasked,
    };
    match error.class {
        // It was not even tried.
        CloudClass::NotSent if error.what == KEY_CHANGED => Reach::Unasked,
        CloudClass::NotSent => Reach::Silent,
        // A listing changes nothing, so that it fails is no question of one routine. An answer that is not the
        // service's, as of a network that wants a log-in first, is as good as none.
        // What the service itself says of one version, or in a shape that cannot be read, is an answer.
        CloudClass::Ambiguous
            if error.request_id.is_some()
                && (error.code.is_none() || error.operation == "DescribeRoutineCodeRevision") =>
        {
            Reach::Answered
        }
        CloudClass::Ambiguous if error.operation.starts_with("Describe") => Reach::Silent,
        CloudClass::Ambiguous => Reach::Unasked,
        CloudClass::Credentials if error.key_changed => Reach::Unasked,
        CloudClass::Credentials if !error.is_permission() => Reach::Rejected,
        // Object storage has its own idea of the time, and its form is only one routine's.
        CloudClass::Clock if error.operation != OPERATION => Reach::Rejected,
        _ => Reach::Answered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All classes. Whoever adds one is led here by the compiler.
    fn classes() -> Vec<CloudClass> {
        let mut classes = vec![CloudClass::NotSent];
        while let Some(next) = match classes[classes.len() - 1] {
            CloudClass::NotSent => Some(CloudClass::Ambiguous),
            CloudClass::Ambiguous => Some(CloudClass::Throttled),
            CloudClass::Throttled => Some(CloudClass::Clock),
            CloudClass::Clock => Some(CloudClass::Credentials),
            CloudClass::Credentials => Some(CloudClass::Quota),
            CloudClass::Quota => Some(CloudClass::Gone),
            CloudClass::Gone => Some(CloudClass::FormExpired),
            CloudClass::FormExpired => Some(CloudClass::Permanent),
            CloudClass::Permanent => Some(CloudClass::UnknownServer),
            CloudClass::UnknownServer => None,
        } {
            classes.push(next);
        }
        classes
    }

    #[test]
    fn every_class_has_its_action_and_its_exit_code() {
        let soon = Again::Soon(Duration::ZERO);
        let (probe, slot) = (Again::Later(PROBE), Again::Later(SLOT_PROBE));
        let table = [
            (CloudClass::NotSent, soon, Reach::Silent, 69),
            (CloudClass::Ambiguous, soon, Reach::Unasked, 69),
            (CloudClass::Throttled, soon, Reach::Answered, 75),
            (CloudClass::Clock, probe, Reach::Rejected, 1),
            (CloudClass::Credentials, probe, Reach::Rejected, 77),
            (CloudClass::Quota, slot, Reach::Answered, 1),
            (CloudClass::Gone, probe, Reach::Answered, 1),
            (CloudClass::FormExpired, soon, Reach::Answered, 1),
            (CloudClass::Permanent, Again::Never, Reach::Answered, 1),
            (
                CloudClass::UnknownServer,
                Again::FewTimes(UNKNOWN_TRIES),
                Reach::Answered,
                1,
            ),
        ];
        assert_eq!(table.map(|(class, ..)| class)[..], classes());
        for (class, then, service, exit) in table {
            let mut error = CloudError::unusable(class, "UploadRoutineCode", "no");
            let code = of_cloud(&error).class.exit_code();
            assert_eq!(code, exit, "{class:?}");
            assert!(!error.help().is_empty(), "{class:?}");
            let deploy = DeployError::Cloud(error.clone());
            assert_eq!((again(&deploy), reach(&deploy)), (then, service));
            // A pause that was asked for is kept by whatever is tried again soon.
            error.retry_after = Some(Duration::from_secs(7));
            if then == soon {
                let later = Again::Soon(Duration::from_secs(7));
                assert_eq!(again(&DeployError::Cloud(error)), later, "{class:?}");
            }
        }
    }

    #[test]
    fn whoever_is_blocked_by_what_was_listed_has_reached_the_service() {
        for blocked in [Blocked::Contradiction, Blocked::Fruitless] {
            assert_eq!(reach(&DeployError::Blocked(blocked)), Reach::Answered);
        }
        assert_eq!(reach(&DeployError::Endless(None)), Reach::Answered);
        let held = DeployError::Lock(LockError::Held(None));
        assert_eq!(reach(&held), Reach::Unasked);
        let unsettled = DeployError::Unsettled(clock::now());
        assert_eq!(reach(&unsettled), Reach::Unasked);
    }

    #[test]
    fn a_key_that_was_replaced_is_tried_at_once_and_halts_nobody() {
        let mut error = CloudError::unusable(CloudClass::Credentials, "UploadRoutineCode", "no");
        error.key_changed = true;
        let not_tried = CloudError::unusable(CloudClass::NotSent, "Delete", KEY_CHANGED);
        for error in [error, not_tried] {
            let error = DeployError::Cloud(error);
            assert_eq!(again(&error), Again::Soon(Duration::ZERO));
            assert_eq!(reach(&error), Reach::Unasked);
        }
    }

    #[test]
    fn what_the_service_says_of_one_version_says_that_the_service_is_there() {
        let odd = |operation, request_id: Option<&str>| {
            let what = "the answer holds no code";
            let mut error = CloudError::unusable(CloudClass::Ambiguous, operation, what);
            error.request_id = request_id.map(String::from);
            reach(&DeployError::Cloud(error))
        };
        for operation in ["DescribeRoutine", "DescribeRoutineCodeRevision"] {
            assert_eq!(odd(operation, Some("R1")), Reach::Answered);
            // A page of something in between has no name for the request.
            assert_eq!(odd(operation, None), Reach::Silent);
        }
    }
}
