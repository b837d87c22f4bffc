//! The only way to a request: a permit here comes before every call of the API, retries and listings included.
//!
//! The service counts what arrives, not what is sent. In any second at most `rate + burst` permits are given, and the
//! requests already on their way can add at most `max_in_flight`; the configuration keeps the sum under the service's
//! limit of 100. A permit is therefore held until the answer has been read.
//!
//! The service counts a user's requests, not a process's. So what has been taken (`bucket`, kept by `budget`) and
//! what is under way (`slots`) lies in files that all er-dev of one state directory share, and a program that is
//! restarted again and again gets no fresh burst. A process that cannot use the files goes on `alone`, slowly.
//!
//! governor decides when; the fair lock around it decides who. Without that lock every waiter wakes at the same
//! instant and asks again, in no order. Between processes there is no such lock: they look again now and then.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::{self, Moment};
use crate::config::Limits;

use alone::Alone;
use bucket::Draw;
use budget::Budget;
use file::Unusable;
use slots::{Held, Slots};

mod alone;
mod bucket;
mod budget;
mod file;
mod slots;

/// How long other processes may keep all places, or the bucket, before this one goes on alone. Longer than any request
/// takes, so that only processes that were stopped can do so.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same where nothing is gained by waiting for long. Longer than a place rests.
const LITTLE_PATIENCE: Duration = Duration::from_secs(3);

/// Gives permits for API requests, first come, first served.
#[derive(Debug)]
pub struct Gate {
    draw: Draw,
    places: u32,
    now: fn() -> Moment,
    line: tokio::sync::Mutex<()>,
    turn: tokio::sync::Mutex<()>,
    in_flight: Semaphore,
    budget: Budget,
    slots: Slots,
    alone: Mutex<Option<Alone>>,
    usage: Mutex<Recent>,
}

/// The right to have one request under way. Drop it when the answer has been read.
#[derive(Debug)]
#[must_use = "a request is under way as long as its permit lives"]
pub struct Permit<'a> {
    gate: &'a Gate,
    under_way: bool,
    /// Its place among all processes; there is none while this one is alone.
    held: Option<Held<'a>>,
    _place: SemaphorePermit<'a>,
}

/// What the gate has let through so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Permits given.
    pub calls: u64,
    /// The most permits given within one second.
    pub peak: u64,
    /// How often the bucket was asked; it stays near `calls` when nobody asks out of turn.
    pub checks: u64,
}

/// How the gate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Requests a second at present, shared with the other processes.
    pub rate: u32,
    /// Requests a second that are configured.
    pub configured: u32,
    /// Why this process cannot share a budget with others, and makes at most 5 requests a second, one at a time.
    pub degraded: Option<String>,
}

#[derive(Debug, Default)]
struct Recent {
    usage: Usage,
    last_second: VecDeque<Moment>,
}

impl Gate {
    /// A gate that shares its budget with all others of this directory, which is made where it is missing. Limits of
    /// zero are taken as one; the configuration refuses them earlier. `now` is the clock that all of them go by.
    pub fn new(limits: Limits, dir: &Path, now: fn() -> Moment) -> Self {
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let draw = Draw {
            rate: count(limits.requests_per_second),
            burst: count(limits.burst),
        };
        let places = count(limits.max_in_flight).get();
        let gate = Self {
            draw,
            places,
            now,
            line: tokio::sync::Mutex::new(()),
            turn: tokio::sync::Mutex::new(()),
            in_flight: Semaphore::new(places as usize),
            budget: Budget::new(dir, draw, &clock::boot_id(), now),
            slots: Slots::new(dir, places, now),
            alone: Mutex::default(),
            usage: Mutex::default(),
        };
        if let Err(unusable) = gate.budget.prepare() {
            gate.go_alone(&unusable);
        }
        gate
    }

    /// Waits in line for the right to send one request.
    pub async fn permit(&self) -> Permit<'_> {
        let _line = self.line.lock().await;
        self.next_permit().await
    }

    /// Waits for the right to send one request ahead of the line, for what rests on a fresh look: behind at most the
    /// first in line and others like it. It counts like any other.
    pub async fn urgent_permit(&self) -> Permit<'_> {
        self.next_permit().await
    }

    /// Halves the rate of all processes, because the service refused a request as one too many. Refusals within a
    /// second halve it once. It comes back by a tenth of the configured rate every ten seconds.
    pub async fn throttled(&self) {
        if let Some(alone) = &mut *lock(&self.alone) {
            return alone.throttle((self.now)());
        }
        if let Err(unusable) = self.budget.throttle(LITTLE_PATIENCE).await {
            self.go_alone(&unusable);
        }
    }

    /// How the gate stands.
    pub fn state(&self) -> State {
        let alone = lock(&self.alone);
        State {
            rate: match &*alone {
                Some(alone) => alone.rate((self.now)()),
                None => self.budget.rate(),
            },
            configured: self.draw.rate.get(),
            degraded: alone.as_ref().map(|alone| alone.why().into()),
        }
    }

    /// What has been let through so far.
    pub fn usage(&self) -> Usage {
        lock(&self.usage).usage
    }

    async fn next_permit(&self) -> Permit<'_> {
        let _turn = self.turn.lock().await;
        let mut checks = 0;
        let permit = loop {
            let alone = lock(&self.alone)
                .as_ref()
                .map(|alone| alone.goes_on((self.now)()));
            let patience = match alone {
                Some(true) => break self.lone_permit(&mut checks).await,
                Some(false) => LITTLE_PATIENCE,
                None => PATIENCE,
            };
            match self.shared_permit(patience, &mut checks).await {
                Ok(permit) => break permit,
                Err(unusable) => self.go_alone(&unusable),
            }
        };
        self.count(checks);
        permit
    }

    /// A permit out of the budget of all processes.
    async fn shared_permit(
        &self,
        patience: Duration,
        checks: &mut u64,
    ) -> Result<Permit<'_>, Unusable> {
        let place = self.place(1).await;
        let held = self.slots.take(patience).await?;
        loop {
            *checks += 1;
            match self.budget.take(patience).await? {
                Ok(()) => break,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
        held.mark()?;
        *lock(&self.alone) = None;
        Ok(Permit {
            gate: self,
            under_way: false,
            held: Some(held),
            _place: place,
        })
    }

    /// A permit for the only request that is under way.
    async fn lone_permit(&self, checks: &mut u64) -> Permit<'_> {
        let place = self.place(self.places).await;
        loop {
            *checks += 1;
            let wait = lock(&self.alone)
                .as_mut()
                .and_then(|alone| alone.take((self.now)()).err());
            match wait {
                None => break,
                Some(wait) => tokio::time::sleep(wait).await,
            }
        }
        Permit {
            gate: self,
            under_way: false,
            held: None,
            _place: place,
        }
    }

    async fn place(&self, places: u32) -> SemaphorePermit<'_> {
        match self.in_flight.acquire_many(places).await {
            Ok(place) => place,
            Err(_) => unreachable!("the gate never closes its semaphore"),
        }
    }

    fn go_alone(&self, unusable: &Unusable) {
        let now = (self.now)();
        self.budget.distrust();
        lock(&self.alone)
            .get_or_insert_with(|| Alone::new(self.draw.rate, now))
            .go_on(unusable.to_string(), now);
    }

    fn count(&self, checks: u64) {
        let now = (self.now)();
        let mut recent = lock(&self.usage);
        recent.last_second.push_back(now);
        while recent
            .last_second
            .front()
            .is_some_and(|first| now.since(*first) >= Duration::from_secs(1))
        {
            recent.last_second.pop_front();
        }
        let within = recent.last_second.len() as u64;
        recent.usage.calls += 1;
        recent.usage.checks += checks;
        recent.usage.peak = recent.usage.peak.max(within);
    }
}

impl Permit<'_> {
    /// Notes that the request is being sent. Until there is an answer it may arrive at any time, so that a permit that
    /// is dropped before does not let another request follow for two seconds.
    pub fn sending(&mut self) {
        self.under_way = true;
    }

    /// Notes that the answer has been read to its end, or that the request was not sent after all.
    pub fn answered(&mut self) {
        self.under_way = false;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.under_way {
            return;
        }
        match self.held.take() {
            Some(held) => held.give_back_lost(),
            None => {
                if let Some(alone) = &mut *lock(&self.gate.alone) {
                    alone.lost((self.gate.now)());
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
