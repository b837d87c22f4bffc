//! The last events, kept for those who listen to them, who each read at their own pace. Whoever falls so far behind that
//! an event is gone is cut off, and may come back for what there is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::metrics::Counts;
use crate::report::{Event, json};

/// How many events are kept.
pub const KEPT: usize = 256;

/// The most who listen at a time.
pub const MAX_LISTENERS: usize = 8;

/// How long there is silence at most.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How many events are handed over at once.
const AT_ONCE: usize = 32;

/// How soon a browser comes back after the connection has ended, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";

/// What has been told, for several who listen.
#[derive(Debug)]
pub struct Feed {
    /// Sets the numbers of this process apart from those of any other.
    begun: i64,
    told: Mutex<Told>,
    newest: watch::Sender<u64>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Told {
    /// The last events as they are sent.
    kept: VecDeque<String>,
    /// How many there were in all.
    all: u64,
    counts: Counts,
}

/// Somebody who listens. Dropping it makes room for another one.
pub(super) struct Listening {
    feed: Arc<Feed>,
    next: u64,
    newest: watch::Receiver<u64>,
    greeted: bool,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// Nothing has been told yet, since this moment.
    pub fn new(begun: Timestamp) -> Self {
        Self {
            begun: begun.as_millisecond(),
            told: Mutex::default(),
            newest: watch::Sender::new(0),
            places: Arc::new(Semaphore::new(MAX_LISTENERS)),
        }
    }

    /// Takes in an event. It waits for nobody.
    pub fn tell(&self, event: &Event, now: Timestamp) {
        let object = json::render(event, now);
        let mut told = self.told();
        told.all += 1;
        let all = told.all;
        if told.kept.len() == KEPT {
            told.kept.pop_front();
        }
        let text = format!("id: {}-{all}\ndata: {object}\n", self.begun);
        told.kept.push_back(text);
        told.counts.see(event);
        drop(told);
        self.newest.send_replace(all);
    }

    /// What was counted of all events.
    pub(super) fn counts(&self) -> Counts {
        self.told().counts.clone()
    }

    /// Listens to what comes after the event with this name, or to all that is kept where there is none or it is of
    /// another process. `None` if too many listen already.
    pub(super) fn listen(self: &Arc<Self>, last: Option<&str>) -> Option<Listening> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let newest = self.newest.subscribe();
        let told = self.told();
        let first = told.first();
        let next = last.and_then(|last| self.number(last));
        // What is gone already is not waited for, and neither is a number that was never given.
        let next = next.map_or(first, |last| (last + 1).max(first));
        let next = if next > told.all + 1 { first } else { next };
        drop(told);
        Some(Listening {
            feed: Arc::clone(self),
            next,
            newest,
            greeted: false,
            _place: place,
        })
    }

    /// The number in the name of an event of this process.
    fn number(&self, name: &str) -> Option<u64> {
        let (begun, number) = name.split_once('-')?;
        (begun.parse() == Ok(self.begun)).then_some(())?;
        number.parse().ok().filter(|number| *number < u64::MAX)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// The number of the oldest event that is kept, or of the next one.
    fn first(&self) -> u64 {
        self.all + 1 - self.kept.len() as u64
    }

    /// Some events from this number on; `None` if it is gone.
    fn from(&self, number: u64) -> Option<String> {
        let skipped = number.checked_sub(self.first())?;
        let skipped = usize::try_from(skipped).ok()?;
        Some(
            self.kept
                .iter()
                .skip(skipped)
                .take(AT_ONCE)
                .cloned()
                .collect(),
        )
    }
}

impl Listening {
    /// The next piece of the stream; `None` at its end.
    pub(super) async fn next(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(RETRY.into());
        }
        loop {
            self.newest.borrow_and_update();
            let text = self.feed.told().from(self.next)?;
            if !text.is_empty() {
                self.next += text.matches("\ndata: ").count() as u64;
                return Some(text);
            }
            match tokio::time::timeout(HEARTBEAT, self.newest.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => return Some(": still here\n\n".into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> Arc<Feed> {
        Arc::new(Feed::new(Timestamp::from_millisecond(7_000).unwrap()))
    }

    fn tell(feed: &Feed, events: usize) {
        for running in 0..events {
            let drain = Duration::ZERO;
            feed.tell(&Event::Stopping { running, drain }, Timestamp::UNIX_EPOCH);
        }
    }

    /// The numbers of the events in the next piece.
    async fn numbers(listening: &mut Listening) -> Option<Vec<u64>> {
        let text = listening.next().await?;
        let lines = text.lines();
        let ids = lines.filter_map(|line| line.strip_prefix("id: 7000-"));
        Some(ids.map(|id| id.parse().unwrap()).collect())
    }

    #[tokio::test]
    async fn an_event_is_sent_with_its_name_and_its_object() {
        let feed = feed();
        tell(&feed, 1);
        let mut listening = feed.listen(None).unwrap();
        assert_eq!(listening.next().await.unwrap(), "retry: 1000\n\n");
        assert_eq!(
            listening.next().await.unwrap(),
            "id: 7000-1\ndata: {\"v\":1,\"ts\":\"1970-01-01T00:00:00.000Z\",\"event\":\"stopping\",\"running\":0,\"drain_ms\":0}\n\n"
        );
    }

    #[tokio::test]
    async fn whoever_comes_back_gets_what_is_new_and_any_other_what_is_kept() {
        let feed = feed();
        tell(&feed, 3);
        let all: &[u64] = &[1, 2, 3];
        for (last, expected) in [
            (None, all),
            (Some("7000-1"), &[2, 3]),
            (Some("7000-0"), all),
            (Some("6999-2"), all),
            (Some("7000-9"), all),
            (Some("7000-18446744073709551615"), all),
            (Some("7000--1"), all),
            (Some("what"), all),
            (Some(""), all),
        ] {
            let mut listening = feed.listen(last).unwrap();
            numbers(&mut listening).await;
            assert_eq!(numbers(&mut listening).await.unwrap(), expected, "{last:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_with_an_event_or_after_a_while() {
        let feed = feed();
        let mut listening = feed.listen(None).unwrap();
        numbers(&mut listening).await;
        assert!(listening.next().await.unwrap().starts_with(": "));
        tell(&feed, 2);
        assert_eq!(numbers(&mut listening).await.unwrap(), [1, 2]);
        let later = numbers(&mut listening);
        let (later, ()) = tokio::join!(later, async { tell(&feed, 1) });
        assert_eq!(later.unwrap(), [3]);
    }

    #[tokio::test]
    async fn whoever_falls_behind_is_cut_off_and_comes_back_for_the_rest() {
        let feed = feed();
        let mut slow = feed.listen(None).unwrap();
        numbers(&mut slow).await;
        tell(&feed, KEPT);
        assert_eq!(numbers(&mut slow).await.unwrap()[0], 1);
        tell(&feed, AT_ONCE + 1);
        assert_eq!(numbers(&mut slow).await, None);
        let mut back = feed.listen(Some("7000-1")).unwrap();
        numbers(&mut back).await;
        assert_eq!(numbers(&mut back).await.unwrap()[0], AT_ONCE as u64 + 2);
    }

    #[tokio::test]
    async fn only_so_many_listen_at_a_time() {
        let feed = feed();
        let mut all: Vec<_> = (0..MAX_LISTENERS).map(|_| feed.listen(None)).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(feed.listen(None).is_none());
        all.pop();
        assert!(feed.listen(None).is_some());
    }
}
