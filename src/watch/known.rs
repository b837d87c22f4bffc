//! What is known of one routine's entry, and whether it can be taken as it is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::debounce::{Due, Gate, UNPROVEN_REST};
use super::snapshot::{self, Seen, StatKey};
use super::{Target, source};

/// How long a file has to have been empty before that is believed. A busy file system may take more than half a second to
/// empty a file for its writer, and tells of it only afterwards; and nothing is lost by waiting, for no empty file goes up.
const EMPTY_QUIET: Duration = Duration::from_secs(2);

/// What is known of one routine's entry.
#[derive(Debug)]
pub(super) struct Known {
    /// How it was when the last edit was sent, or when nothing was found to send; `None` if its root went away since.
    pub(super) seen: Option<Seen>,
    /// Where it led then, if it was a symbolic link.
    leads: Option<PathBuf>,
    /// How it was after the last hint, or when that no longer was so.
    noted: Option<StatKey>,
    /// When that was.
    noted_at: Instant,
    /// How it was when its writer had left it open and its bytes were no code.
    refused: Option<StatKey>,
    /// No event told of its last change that its writer was done, so the writer may have it mapped and go on unseen.
    held: bool,
    /// A look found its last change, and no event has told of it since.
    unheard: bool,
    /// The device it was on when it was last there.
    device: Option<u64>,
    /// It has been said that the file has other names.
    warned: bool,
}

impl Known {
    /// Looks at an entry for the first time.
    pub(super) fn first(target: &Target) -> Self {
        // An entry that changes all the time is left to the first look after this one.
        let seen = snapshot::read(target).unwrap_or(Seen {
            key: None,
            digest: None,
            racy: false,
        });
        let mut known = Self {
            seen: None,
            leads: std::fs::read_link(&target.entry).ok(),
            noted: seen.key,
            noted_at: Instant::now(),
            refused: None,
            held: false,
            unheard: false,
            device: None,
            warned: false,
        };
        known.take(target, seen);
        known.device = seen.key.map(|key| key.device());
        known
    }

    /// How the entry was last, as far as that has been told of.
    pub(super) fn key(&self) -> Option<StatKey> {
        self.seen.and_then(|seen| seen.key)
    }

    /// Whether there is anything at its path.
    pub(super) fn is_there(&self) -> bool {
        self.key().is_some()
    }

    /// Whether a later write could have left it looking the same.
    pub(super) fn is_racy(&self) -> bool {
        self.seen.is_some_and(|seen| seen.racy)
    }

    /// Whether a program may hold it mapped.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Reads an entry that looks the same; whether it holds other bytes than those that were told of.
    pub(super) fn is_rewritten(&mut self, target: &Target) -> bool {
        let (Some(before), Some(seen)) = (self.seen, snapshot::read(target)) else {
            return true;
        };
        // That it cannot be read just now says nothing.
        if seen.key.is_none() {
            return false;
        }
        let same = (before.key, before.digest) == (seen.key, seen.digest);
        if same {
            self.seen = Some(seen);
        }
        !same
    }

    /// Takes over how a change ended: what was known of its writer, the saves that events told of, and whether the bytes
    /// became others.
    pub(super) fn learn(&mut self, gate: Gate, saves: u32, other: bool) {
        self.held = match gate {
            Gate::Unseen | Gate::Writing => self.held || other,
            Gate::Done | Gate::Fresh => self.held && saves == 0,
        };
    }

    /// A look found a change of which nothing was known.
    pub(super) fn found(&mut self) {
        self.unheard = true;
    }

    /// An event told of a change, or may have and was lost.
    pub(super) fn heard(&mut self) {
        self.unheard = false;
    }

    /// Whether nothing but looks told of a change that ended like this. Of what is written through another name of the
    /// file, no event has to tell.
    pub(super) fn is_unheard(&self, seen: Seen) -> bool {
        self.unheard && seen.key.is_some_and(|key| !key.has_other_names())
    }

    /// What a change waits for that has not settled for long.
    pub(super) fn why_it_waits(&self, gate: Gate) -> &'static str {
        match (gate, self.refused) {
            (Gate::Writing, Some(_)) => "is still open for writing and does not parse",
            _ => "changes all the time",
        }
    }

    /// Whether it is as it was when it was noted.
    pub(super) fn is_noted(&self, key: Option<StatKey>) -> bool {
        self.noted == key
    }

    /// Remembers how an entry is while its quiet time begins.
    pub(super) fn note(&mut self, key: Option<StatKey>) {
        self.noted = key;
        self.noted_at = Instant::now();
    }

    /// What there is at a change that is due; `None` if it turns out not to be at rest, for which it has to have been as
    /// it is for some time.
    pub(super) fn read(&mut self, target: &Target, due: &Due, rest: Duration) -> Option<Seen> {
        let writing = due.gate == Gate::Writing;
        if writing && self.refused.is_some() && self.refused == snapshot::look(target) {
            return None;
        }
        let seen = snapshot::read(target);
        let key = seen.map_or_else(|| snapshot::look(target), |seen| seen.key);
        let needed = match key {
            Some(key) if key.is_empty() => EMPTY_QUIET.max(rest),
            _ => rest,
        };
        if key != self.noted {
            self.note(key);
            return None;
        }
        let rested = self.noted_at.elapsed();
        if rested < needed {
            return None;
        }
        let doubtful = matches!(due.gate, Gate::Writing | Gate::Unseen);
        if doubtful && !self.is_proven(target, seen) {
            if writing && target.check {
                self.refused = key;
                return None;
            }
            if rested < UNPROVEN_REST {
                return None;
            }
        }
        seen
    }

    /// Whether something speaks for what was read besides its rest: it is code, what it was, or nothing at all.
    fn is_proven(&self, target: &Target, seen: Option<Seen>) -> bool {
        let Some(seen) = seen.filter(|seen| seen.key.is_some()) else {
            return true;
        };
        let same = self.seen.is_some_and(|before| before.digest == seen.digest);
        same || target.check && source::read(target).is_ok()
    }

    /// Takes over what was read; how it was before.
    pub(super) fn take(&mut self, target: &Target, seen: Seen) -> Option<Seen> {
        self.refused = None;
        let file = seen.key.filter(|_| seen.digest.is_some());
        if file.is_some_and(|key| key.has_other_names()) && !self.warned {
            self.warned = true;
            tracing::warn!(
                "`{}` has other names (it is a hard link): what is written through one of them goes up as well",
                target.entry.display()
            );
        }
        self.seen.replace(seen)
    }

    /// Whether what was read is on another device than what was there before.
    pub(super) fn is_on_another_device(&mut self, seen: Seen) -> bool {
        let Some(key) = seen.key else {
            return false;
        };
        let before = self.device.replace(key.device());
        before.is_some_and(|before| before != key.device())
    }

    /// Whether the entry leads elsewhere than when this was last asked.
    pub(super) fn is_led_elsewhere(&mut self, target: &Target) -> bool {
        let leads = std::fs::read_link(&target.entry).ok();
        let before = std::mem::replace(&mut self.leads, leads);
        before != self.leads
    }
}
