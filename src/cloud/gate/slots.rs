//! The places for requests under way, one file each, which all processes share.
//!
//! A place is taken while its file is locked. The file says from when on the place may be taken, which a request under
//! way sets to never. A process that is killed gives its locks back at once, while its requests may still arrive: whoever
//! finds a free place that says never lets it rest.

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Moment;

use super::file::{Kind, LockFile, Unusable};

/// How long a request may be under way after nobody waits for its answer any more.
pub(super) const REST: Duration = Duration::from_secs(2);

/// The pause between two looks for a place while other processes have all of them.
const STEP: Duration = Duration::from_millis(10);

/// The length of what a place says, in bytes.
const LENGTH: usize = 21;

/// All places that this process may take.
#[derive(Debug)]
pub(super) struct Slots {
    now: fn() -> Moment,
    slots: Mutex<Vec<Slot>>,
    line: Mutex<LockFile>,
}

#[derive(Debug)]
struct Slot {
    file: LockFile,
    ours: bool,
}

/// A place that is taken. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Held<'a> {
    slots: &'a Slots,
    index: usize,
    lost: bool,
}

/// A wait for a place that other processes can see.
struct InLine<'a>(&'a Mutex<LockFile>);

impl Slots {
    /// So many places of this directory. Touches nothing yet.
    pub(super) fn new(dir: &Path, count: u32, now: fn() -> Moment) -> Self {
        let slot = |index| Slot {
            file: LockFile::new(dir, &format!("slot-{index}")),
            ours: false,
        };
        Self {
            now,
            slots: Mutex::new((0..count).map(slot).collect()),
            line: Mutex::new(LockFile::new(dir, "line")),
        }
    }

    /// Waits for a place. Only one task of a process may do so at a time.
    pub(super) async fn take(&self, patience: Duration) -> Result<Held<'_>, Unusable> {
        let begun = Instant::now();
        // Whoever just gave a place back would always be the first to see it, so others are let in between.
        if !self.others_wait()?
            && let Some(held) = self.find()?
        {
            return Ok(held);
        }
        let _line = InLine(&self.line);
        loop {
            lock(&self.line).try_lock(Kind::Together)?;
            tokio::time::sleep(STEP).await;
            if let Some(held) = self.find()? {
                return Ok(held);
            }
            if begun.elapsed() >= patience {
                let error = io::Error::other("other processes keep all places for requests");
                return Err(lock(&self.line).unusable(error));
            }
        }
    }

    fn others_wait(&self) -> Result<bool, Unusable> {
        let mut line = lock(&self.line);
        let nobody = line.try_lock(Kind::Alone)?;
        line.unlock();
        Ok(!nobody)
    }

    /// Takes a place that nobody has and that does not rest.
    fn find(&self) -> Result<Option<Held<'_>>, Unusable> {
        for (index, slot) in lock(&self.slots).iter_mut().enumerate() {
            if slot.ours || !slot.file.try_lock(Kind::Alone)? {
                continue;
            }
            match slot.may_be_used((self.now)()) {
                Ok(true) => {
                    slot.ours = true;
                    return Ok(Some(Held {
                        slots: self,
                        index,
                        lost: false,
                    }));
                }
                Ok(false) => slot.file.unlock(),
                Err(error) => {
                    slot.file.unlock();
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

impl Slot {
    /// Whether this place, which is locked, has no request under way. If one could be, its rest begins now.
    fn may_be_used(&self, now: Moment) -> Result<bool, Unusable> {
        let text = self.file.read::<LENGTH>()?;
        let from = free_from(&text);
        // When its request was lost is not known, only that it was before now.
        if from.since(now) > REST {
            self.file.write(&text_of(now + REST))?;
        }
        Ok(from <= now)
    }
}

impl Held<'_> {
    /// Notes, for the case that this process is killed, that a request is under way from now on.
    pub(super) fn mark(&self) -> Result<(), Unusable> {
        lock(&self.slots.slots)[self.index]
            .file
            .write(&text_of(never()))
    }

    /// Gives the place back to rest, because the request may still be under way.
    pub(super) fn give_back_lost(mut self) {
        self.lost = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let now = (self.slots.now)();
        let from = if self.lost { now + REST } else { Moment::BOOT };
        let slot = &mut lock(&self.slots.slots)[self.index];
        // Where this fails, the next to come lets the place rest.
        let _ = slot.file.write(&text_of(from));
        slot.file.unlock();
        slot.ours = false;
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        lock(self.0).unlock();
    }
}

/// From when on a place that says this may be taken.
fn free_from(text: &[u8]) -> Moment {
    if text.is_empty() {
        return Moment::BOOT;
    }
    let number = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.len() == LENGTH);
    let number = number.and_then(|text| text.strip_suffix('\n')?.parse().ok());
    number.map_or_else(never, |nanos| {
        Moment::after_boot(Duration::from_nanos(nanos))
    })
}

/// What a place says while a request is under way.
fn never() -> Moment {
    Moment::after_boot(Duration::MAX)
}

fn text_of(from: Moment) -> String {
    format!("{:020}\n", from.since_boot().as_nanos())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
