//! The bucket in a file that all processes of one user and state directory share.
//!
//! The lock is held for one look at the bucket, and never while something is waited for.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Moment;

use super::bucket::{self, Bucket, Draw};
use super::file::{Kind, LockFile, Unusable};

/// The pause before another look at a file that is locked, which it is for microseconds.
const RETRY: Duration = Duration::from_millis(1);

/// How often in a row the file may hold something else than a bucket. Then somebody else is at work on it, such as
/// another machine that has its home on the same server, and both would empty the bucket for ever.
const MAX_RESETS: u32 = 5;

/// The shared bucket.
#[derive(Debug)]
pub(super) struct Budget {
    draw: Draw,
    boot: String,
    now: fn() -> Moment,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    file: LockFile,
    /// Whether what the file holds counts, if it can be read.
    trusted: bool,
    resets: u32,
}

impl Budget {
    /// The bucket in this directory. Touches nothing yet. Where the name of the boot is not known, the bucket is
    /// emptied once: it could be of another boot.
    pub(super) fn new(dir: &Path, draw: Draw, boot: &str, now: fn() -> Moment) -> Self {
        let boot = boot.trim();
        let named = boot.len() == bucket::BOOT && boot.is_ascii();
        Self {
            draw,
            boot: if named { boot.into() } else { String::new() },
            now,
            kept: Mutex::new(Kept {
                file: LockFile::new(dir, "budget"),
                trusted: named,
                resets: 0,
            }),
        }
    }

    /// Sees to it that there is a bucket, unless another process is just doing so.
    pub(super) fn prepare(&self) -> Result<(), Unusable> {
        self.change(|_, _| ()).map(|_| ())
    }

    /// Takes one request out of the bucket, or says how long to wait before asking again.
    pub(super) async fn take(&self, patience: Duration) -> Result<Result<(), Duration>, Unusable> {
        self.in_turn(patience, |bucket, now| bucket.take(self.draw, now))
            .await
    }

    /// Halves the rate for everybody, if that has not just been done.
    pub(super) async fn throttle(&self, patience: Duration) -> Result<(), Unusable> {
        self.in_turn(patience, Bucket::throttle).await
    }

    /// How many requests a second there are at present, as far as can be told.
    pub(super) fn rate(&self) -> u32 {
        let kept = self.kept();
        let now = (self.now)();
        // Without the lock the text can be torn, and shows it.
        let text = kept.file.read::<{ bucket::LENGTH + 1 }>().ok();
        text.and_then(|text| Bucket::read(&text, &self.boot, now))
            .map_or(self.draw.rate, |bucket| bucket.rate(self.draw.rate, now))
            .get()
    }

    /// Empties the bucket before it is used again, because requests were made that it does not know of.
    pub(super) fn distrust(&self) {
        self.kept().trusted = false;
    }

    async fn in_turn<T>(
        &self,
        patience: Duration,
        act: impl Fn(&mut Bucket, Moment) -> T,
    ) -> Result<T, Unusable> {
        let begun = Instant::now();
        loop {
            if let Some(done) = self.change(&act)? {
                return Ok(done);
            }
            if begun.elapsed() >= patience {
                let error = io::Error::other("another process does not let go of it");
                return Err(self.kept().file.unusable(error));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Does something with the bucket under its lock, and writes what has changed; `None` while another process has it.
    fn change<T>(&self, act: impl FnOnce(&mut Bucket, Moment) -> T) -> Result<Option<T>, Unusable> {
        let mut kept = self.kept();
        if !kept.file.try_lock(Kind::Alone)? {
            return Ok(None);
        }
        let done = self.change_locked(&mut kept, act);
        kept.file.unlock();
        done.map(Some)
    }

    fn change_locked<T>(
        &self,
        kept: &mut Kept,
        act: impl FnOnce(&mut Bucket, Moment) -> T,
    ) -> Result<T, Unusable> {
        // Read under the lock, so that nobody is later than what the file holds.
        let now = (self.now)();
        let text = kept.file.read::<{ bucket::LENGTH + 1 }>()?;
        let before = Bucket::read(&text, &self.boot, now).filter(|_| kept.trusted);
        let mut bucket = match &before {
            Some(bucket) => {
                kept.resets = 0;
                bucket.clone()
            }
            None if kept.resets == MAX_RESETS => {
                kept.resets = 0;
                let error = io::Error::other("somebody else writes to it");
                return Err(kept.file.unusable(error));
            }
            None => {
                kept.resets += 1;
                Bucket::empty(self.draw, now)
            }
        };
        let done = act(&mut bucket, now);
        if before.as_ref() != Some(&bucket) {
            kept.file.write(&bucket.text(&self.boot))?;
        }
        if text.len() > bucket::LENGTH {
            kept.file.cut(bucket::LENGTH)?;
        }
        kept.trusted = true;
        Ok(done)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
