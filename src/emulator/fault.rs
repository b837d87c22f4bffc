//! Faults: which request goes wrong. Pure.
//!
//! A fault is written `<operation>:<when>:<action>`, as in `UploadRoutineCode:2:drop_after`. In which way it goes wrong
//! is in `action`, what that does to an answer in `answer`. Chance comes from a seed, so that a run with the same seed and the same requests goes
//! wrong in the same places.

use super::action::{Action, ActionError, number};
use super::history::POST_OBJECT;
use super::operations;

/// The most faults set at one time; one more is refused.
pub const MAX_FAULTS: usize = 1_000;

/// One fault, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    text: String,
    target: Target,
    when: When,
    action: Action,
}

/// Why a text is no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// It does not have three parts.
    #[error(
        "`{0}` is no fault; a fault is <operation>:<when>:<action>, as in `UploadRoutineCode:2:drop_after`"
    )]
    Shape(String),
    /// The first part names no operation.
    #[error("there is no operation `{0}` to fail; take api, oss, *, or one of {names}", names = operations::names().join(", "))]
    Operation(String),
    /// The second part names no requests.
    #[error("`{0}` does not say which requests; write 3 for the third, 2-4, * for all, or 5%")]
    When(String),
    /// The third part is no action.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// The action makes sense for object storage only.
    #[error("`{0}` is about the callback of object storage; it goes with the operation oss only")]
    StorageOnly(String),
    /// There are [`MAX_FAULTS`] faults already.
    #[error("there are {MAX_FAULTS} faults already; clear them first")]
    TooMany,
}

/// The faults that are set, in their order.
#[derive(Debug, Default)]
pub struct Faults {
    seed: u64,
    armed: Vec<Armed>,
}

/// What was chosen for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// What goes wrong.
    pub action: Action,
    /// The action as it was written.
    pub text: String,
    /// A number from the seed, for what is random in the action.
    pub draw: u64,
}

/// The numbers that follow from a seed (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Chance(pub(super) u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Operation(&'static str),
    Api,
    All,
}

/// Which of the requests that match, counted from one since the fault was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Between(u64, u64),
    Always,
    Percent(u64),
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    matched: u64,
    used: u64,
    chance: Chance,
}

impl Fault {
    /// Reads a fault.
    pub fn parse(text: &str) -> Result<Self, FaultError> {
        let mut parts = text.trim().splitn(3, ':');
        let (Some(operation), Some(when), Some(action)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(FaultError::Shape(text.to_owned()));
        };
        let target = Target::parse(operation.trim())?;
        let action_text = action.trim();
        let action = Action::parse(action_text)?;
        let of_storage = matches!(action, Action::Unregistered | Action::CallbackLost);
        if of_storage && target != Target::Operation(POST_OBJECT) {
            return Err(FaultError::StorageOnly(action_text.to_owned()));
        }
        Ok(Self {
            text: text.trim().to_owned(),
            target,
            when: When::parse(when.trim())?,
            action,
        })
    }

    /// The fault as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What goes wrong.
    pub fn action(&self) -> &Action {
        &self.action
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self, FaultError> {
        let operation = || {
            let known = operations::names()
                .into_iter()
                .chain([POST_OBJECT])
                .find(|name| *name == text);
            known
                .map(Self::Operation)
                .ok_or_else(|| FaultError::Operation(text.to_owned()))
        };
        match text {
            "*" => Ok(Self::All),
            "api" => Ok(Self::Api),
            "oss" => Ok(Self::Operation(POST_OBJECT)),
            _ => operation(),
        }
    }

    fn matches(self, op: &str) -> bool {
        match self {
            Self::Operation(name) => name == op,
            Self::Api => op != POST_OBJECT,
            Self::All => true,
        }
    }
}

impl When {
    fn parse(text: &str) -> Result<Self, FaultError> {
        let count = |text| number(text, 1, u64::MAX);
        let parsed = if text == "*" {
            Some(Self::Always)
        } else if let Some(percent) = text.strip_suffix('%') {
            number(percent, 1, 100).map(Self::Percent)
        } else if let Some((first, last)) = text.split_once('-') {
            count(first)
                .zip(count(last))
                .map(|(first, last)| Self::Between(first, last))
                .filter(|when| matches!(when, Self::Between(first, last) if first <= last))
        } else {
            count(text).map(|n| Self::Between(n, n))
        };
        parsed.ok_or_else(|| FaultError::When(text.to_owned()))
    }
}

impl Faults {
    /// No faults; those set later draw their chance from this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            armed: Vec::new(),
        }
    }

    /// Sets one more fault. Its requests are counted from now on.
    pub fn add(&mut self, fault: Fault) -> Result<(), FaultError> {
        if self.armed.len() >= MAX_FAULTS {
            return Err(FaultError::TooMany);
        }
        // Each fault has numbers of its own, so that one more fault does not change what the others do.
        let chance = Chance(Chance(self.seed.wrapping_add(self.armed.len() as u64)).next());
        self.armed.push(Armed {
            fault,
            matched: 0,
            used: 0,
            chance,
        });
        Ok(())
    }

    /// Sets several faults in their order, all of them or none.
    pub fn extend(&mut self, faults: Vec<Fault>) -> Result<(), FaultError> {
        if self.armed.len() + faults.len() > MAX_FAULTS {
            return Err(FaultError::TooMany);
        }
        faults.into_iter().try_for_each(|fault| self.add(fault))
    }

    /// The faults set from now on draw their chance from this seed.
    pub fn seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Forgets all faults.
    pub fn clear(&mut self) {
        self.armed.clear();
    }

    /// The faults and how often each was used.
    pub fn list(&self) -> impl Iterator<Item = (&Fault, u64)> {
        self.armed.iter().map(|armed| (&armed.fault, armed.used))
    }

    /// What goes wrong with a request that has just come. Every fault counts it; of those that would act on it the
    /// one that was set first does.
    pub fn choose(&mut self, op: &str) -> Option<Hit> {
        let mut hit = None;
        for armed in &mut self.armed {
            if !armed.fault.target.matches(op) {
                continue;
            }
            armed.matched += 1;
            let draw = armed.chance.next();
            let acts = match armed.fault.when {
                When::Between(first, last) => (first..=last).contains(&armed.matched),
                When::Always => true,
                When::Percent(percent) => draw % 100 < percent,
            };
            if acts && hit.is_none() {
                armed.used += 1;
                let text = armed.fault.text.splitn(3, ':').nth(2).unwrap_or_default();
                hit = Some(Hit {
                    action: armed.fault.action.clone(),
                    text: text.trim().to_owned(),
                    draw,
                });
            }
        }
        hit
    }
}

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(specs: &[&str]) -> Faults {
        let mut faults = Faults::new(7);
        for spec in specs {
            faults.add(Fault::parse(spec).unwrap()).unwrap();
        }
        faults
    }

    fn texts(faults: &mut Faults, ops: &[&str]) -> Vec<String> {
        ops.iter()
            .map(|op| faults.choose(op).map_or_else(|| "-".into(), |hit| hit.text))
            .collect()
    }

    #[test]
    fn what_is_no_fault_is_told_with_what_would_be_one() {
        for (text, words) in [
            (
                "UploadRoutineCode:drop_after",
                "<operation>:<when>:<action>",
            ),
            ("Upload:1:drop_after", "UploadRoutineCode"),
            ("oss:0:drop_after", "5%"),
            ("oss:4-2:drop_after", "2-4"),
            ("oss:101%:drop_after", "5%"),
            ("oss::drop_after", "5%"),
            ("oss:1:explode", "process_late(ms)"),
            ("oss:1:delay", "delay(ms)"),
            ("oss:1:delay(soon)", "delay(ms)"),
            ("oss:1:delay(1", "delay(ms)"),
            ("oss:1:drop_after(1)", "write drop_after"),
            ("oss:1:status(100)", "status(200..599)"),
            ("oss:1:redirect(200,http://a)", "redirect(300..399,url)"),
            ("oss:1:redirect(302,a b)", "redirect(300..399,url)"),
            ("oss:1:code()", "code(Code"),
            ("oss:1:kill(0,after)", "kill(pid,before)"),
            ("oss:1:kill(-5,after)", "kill(pid,before)"),
            ("oss:1:kill(77,never)", "kill(pid,mid)"),
            ("*:1:unregistered", "oss only"),
            ("api:1:callback_lost", "oss only"),
        ] {
            let error = Fault::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_fault_counts_the_requests_of_its_operation_since_it_was_set() {
        let mut faults = faults(&["UploadRoutineCode:2:drop_after"]);
        let ops = [
            "UploadRoutineCode",
            "DescribeRoutine",
            "PostObject",
            "UploadRoutineCode",
            "UploadRoutineCode",
        ];
        assert_eq!(texts(&mut faults, &ops), ["-", "-", "-", "drop_after", "-"]);
        assert_eq!(faults.list().map(|(_, used)| used).sum::<u64>(), 1);
        faults.clear();
        faults
            .add(Fault::parse("UploadRoutineCode:2-3:drip").unwrap())
            .unwrap();
        let again = ["UploadRoutineCode"; 4];
        assert_eq!(texts(&mut faults, &again), ["-", "drip", "drip", "-"]);
    }

    #[test]
    fn the_storage_the_api_and_all_can_be_named_and_an_unknown_operation_is_of_the_api() {
        let ops = ["PostObject", "DescribeRoutine", "Unknown"];
        for (target, expected) in [
            ("oss", ["drip", "-", "-"]),
            ("PostObject", ["drip", "-", "-"]),
            ("api", ["-", "drip", "drip"]),
            ("*", ["drip", "drip", "drip"]),
        ] {
            let mut faults = faults(&[&format!("{target}:*:drip")]);
            assert_eq!(texts(&mut faults, &ops), expected, "{target}");
        }
    }

    #[test]
    fn of_two_faults_for_one_request_the_first_set_wins_and_both_count_it() {
        let mut faults = faults(&["*:2:drip", "oss:1-2:truncate", "oss:2:garbage"]);
        let ops = ["PostObject"; 3];
        assert_eq!(texts(&mut faults, &ops), ["truncate", "drip", "-"]);
    }

    #[test]
    fn a_share_of_the_requests_is_met_and_the_same_ones_with_the_same_seed() {
        let run = |seed, others: &[&str]| {
            let mut faults = Faults::new(seed);
            for spec in ["*:20%:drip"].iter().chain(others) {
                faults.add(Fault::parse(spec).unwrap()).unwrap();
            }
            texts(&mut faults, &["PostObject"; 1000])
                .iter()
                .map(|text| text == "drip")
                .collect::<Vec<bool>>()
        };
        let first = run(1, &[]);
        let met = first.iter().filter(|met| **met).count();
        assert!((150..=250).contains(&met), "{met} of 1000");
        assert_eq!(run(1, &["oss:50%:garbage"]), first);
        assert_ne!(run(2, &[]), first);
        assert!(
            texts(&mut faults(&["*:100%:drip"]), &["PostObject"; 500])
                .iter()
                .all(|text| text == "drip")
        );
    }
}
