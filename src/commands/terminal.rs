//! The terminal of a running watch: its size, its keys, and how it is given back.
//!
//! Keys come one at a time and are not shown, and everything else stays as it is: Ctrl-C and Ctrl-Z are signals as
//! everywhere. What was changed is put back when the program ends, is suspended or panics. A program in the
//! background leaves the terminal to whoever has it.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpgrp, getpid, kill_process};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcgetwinsize,
    tcsetattr,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::report::Report;
use crate::report::live::Key;

use super::Failure;

/// Keys that wait for the loop. Whoever presses more meanwhile presses them in vain.
const KEYS: usize = 16;

/// How long a program in the background waits before it looks whether it is there still.
const BACKGROUND: Duration = Duration::from_secs(1);

/// How long a key is waited for before it is asked whether anybody wants one.
const PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// A terminal that is watched. Dropping it gives it back.
pub(super) struct Terminal {
    mode: Arc<Mode>,
    _tasks: JoinSet<()>,
}

/// How the terminal was, and that it is put back so.
struct Mode {
    before: Option<Termios>,
}

impl Terminal {
    /// Takes the terminal that standard output goes to, if that is one which can show a live line, and the keys of
    /// standard input, if that is one as well. What happens to it comes through the channel.
    pub(super) fn open(
        report: &mut Report,
    ) -> Result<Option<(Self, mpsc::Receiver<Key>)>, Failure> {
        if is_dumb() || !report.go_live(size()) {
            return Ok(None);
        }
        let (sender, keys) = mpsc::channel(KEYS);
        let mode = Arc::new(Mode::now());
        mode.enter();
        let mut tasks = JoinSet::new();
        tasks.spawn(changes(sender.clone(), Arc::clone(&mode))?);
        if mode.before.is_some() {
            // It ends when nobody takes its keys any more, and holds nothing that would have to be waited for.
            std::thread::Builder::new()
                .name("keys".into())
                .spawn(move || presses(&sender))
                .map_err(Failure::other)?;
        }
        let terminal = Self {
            mode,
            _tasks: tasks,
        };
        Ok(Some((terminal, keys)))
    }

    /// Gives the terminal back, stops the program as Ctrl-Z does, and takes the terminal again when it goes on.
    pub(super) fn suspend(&self) -> impl Fn() + Send + use<> {
        let mode = Arc::clone(&self.mode);
        move || {
            mode.leave();
            // The signal that asked for this was caught, so the program stops itself as the rest of its group has.
            if let Err(error) = kill_process(getpid(), Signal::STOP) {
                tracing::warn!(%error, "the program cannot be suspended");
            }
            mode.enter();
        }
    }
}

/// Whether the terminal can show lines only, one below the other.
pub(super) fn is_dumb() -> bool {
    super::env("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Whether whoever read standard output has closed the pipe. Somebody who only writes on a change would learn it late.
pub(super) fn reader_is_gone() -> bool {
    let output = io::stdout();
    let mut gone = [PollFd::new(&output, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut gone, Some(&now)).is_ok_and(|_| gone[0].revents().contains(PollFlags::ERR))
}

/// How many columns and rows the terminal has that standard output goes to.
pub(super) fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    let size = (usize::from(size.ws_col), usize::from(size.ws_row));
    (size.0 > 0 && size.1 > 0).then_some(size)
}

impl Mode {
    fn now() -> Self {
        let input = io::stdin();
        Self {
            before: input
                .is_terminal()
                .then(|| tcgetattr(&input).ok())
                .flatten(),
        }
    }

    /// Lets keys come one at a time, unseen.
    fn enter(&self) {
        if let Some(before) = self.before.as_ref().filter(|_| in_front()) {
            let mut after = before.clone();
            after.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            // Reading takes what is there and never waits.
            after.special_codes[SpecialCodeIndex::VMIN] = 0;
            after.special_codes[SpecialCodeIndex::VTIME] = 0;
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &after);
        }
    }

    /// Puts everything back. Setting a terminal from the background would stop the program.
    fn leave(&self) {
        if let Some(before) = self.before.as_ref().filter(|_| in_front()) {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The task that shares the mode may end later than the program.
        self.mode.leave();
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        self.leave();
    }
}

fn in_front() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|front| front == getpgrp())
}

/// Tells when the terminal has another size, and when the program is to be suspended or goes on.
fn changes(
    sender: mpsc::Sender<Key>,
    mode: Arc<Mode>,
) -> Result<impl Future<Output = ()>, Failure> {
    let of = |kind| signal(kind).map_err(Failure::other);
    let mut resized = of(SignalKind::window_change())?;
    let mut suspended = of(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
    let mut back = of(SignalKind::from_raw(Signal::CONT.as_raw()))?;
    Ok(async move {
        loop {
            let key = tokio::select! {
                Some(()) = resized.recv() => Key::Resized,
                Some(()) = suspended.recv() => Key::Suspend,
                Some(()) = back.recv() => {
                    mode.enter();
                    Key::Back
                }
                else => return,
            };
            if sender.send(key).await.is_err() {
                return;
            }
        }
    })
}

/// Tells which keys are pressed, until nobody wants to know. Only looking waits, never reading: a program that reads from
/// the background is stopped.
fn presses(sender: &mpsc::Sender<Key>) {
    let input = io::stdin();
    let mut bytes = [0; 64];
    while !sender.is_closed() {
        let mut ready = [PollFd::new(&input, PollFlags::IN)];
        match poll(&mut ready, Some(&PATIENCE)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) if !in_front() => std::thread::sleep(BACKGROUND),
            Ok(_) => match rustix::io::read(&input, &mut bytes) {
                // The terminal is gone.
                Ok(0) => return,
                Ok(1) => {
                    if let Some(key) = Key::of(bytes[0]) {
                        let _ = sender.try_send(key);
                    }
                }
                // What comes at once is one press of a key that means nothing here, such as an arrow, or pasted text.
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}
