//! From the file as it is written to a [`Config`] that the rest of er-dev may rely on.
//!
//! Here are the defaults and the bounds of every key but those of a routine, which `routine` has. A key whose feature
//! is still to come is checked like the others and then refused, unless it asks for what happens anyway.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use ignore::gitignore::GitignoreBuilder;
use toml::Spanned;

use super::error::{Fault, line_of};
use super::raw::{self, Period};
use super::{
    Backend, Config, Daemon, Endpoint, Kind, Limits, Pattern, Revisions, Rotate, Routine, Service,
    Verify, Watch, endpoint, glob, routine,
};

/// The endpoint of a file that names none.
const ENDPOINT: &str = "https://dcdn.aliyuncs.com";

/// Requests that may reach the service in any second: it refuses an operation's hundredth. What may arrive is what may
/// be sent in a second (rate and burst) and what was on its way before (in flight).
const MAX_ARRIVALS: u32 = 99;
const REQUESTS_PER_SECOND: u32 = 80;
const BURST: u32 = 10;
const MAX_IN_FLIGHT: u32 = 8;

const DEBOUNCE: Duration = Duration::from_millis(100);
/// Shorter, and one save of an editor becomes two edits; longer, and nobody waits for it.
const DEBOUNCE_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
const MAX_WAIT: Duration = Duration::from_secs(2);
/// The upper end leaves room above the longest debounce, which `max_wait` may not undercut.
const MAX_WAIT_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(600);
const RESCAN: Duration = Duration::from_secs(30);
/// Shorter, and a large tree is looked at without a pause; longer, and a missed event is as good as lost.
const RESCAN_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A change counts after two equal looks, so a save waits for up to twice this time.
const POLL_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(10);
/// Nothing at all is allowed: then a stop leaves running uploads to the next start.
const DRAIN_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// Versions a routine may hold, the service's own limit.
const MAX_CAP: usize = 10;
const RESERVE: usize = 1;
const KEEP_NEWEST: usize = 3;

/// Checks everything. `text` is what was read and `file` its own absolute path; `allowed` are hosts the caller vouches
/// for.
pub(super) fn check(
    raw: raw::File,
    text: &str,
    file: &Path,
    allowed: &[String],
) -> Result<Config, Fault> {
    let service = service(raw.service, allowed)?;
    let limits = limits(&raw.limits)?;
    let watch = watch(raw.watch, text)?;
    let revisions = revisions(raw.revisions)?;
    let daemon = daemon(&raw.daemon)?;
    let dir = file.parent().unwrap_or(Path::new("/"));
    let mut routines: Vec<Routine> = Vec::new();
    let (mut globs, mut builds) = (Vec::new(), Vec::new());
    for raw in raw.routine {
        let span = raw.name.span();
        let build = raw.build.as_ref().map(Spanned::span);
        if let Some(glob) = glob::check(&raw, text, dir, globs.len())? {
            builds.extend(routine::same_time(glob.build(), &builds, build)?);
            globs.push(glob);
            continue;
        }
        let routine = routine::check(raw, text, dir)?;
        builds.extend(routine::same_time(routine.build.as_ref(), &builds, build)?);
        if routines.iter().any(|known| known.name == routine.name) {
            return Err(
                Fault::at(span, format!("two routines are named `{}`", routine.name))
                    .help("the service knows a routine by its name alone; rename or remove one"),
            );
        }
        routines.push(routine);
    }
    if routines.is_empty() && globs.is_empty() {
        return Err(
            Fault::somewhere("no [[routine]] in this file, so there is nothing to upload")
                .help("add [[routine]] with name = \"hello\" and entry = \"hello.js\""),
        );
    }
    Ok(Config {
        file: file.to_owned(),
        service,
        limits,
        watch,
        revisions,
        daemon,
        routines,
        globs,
        contested: Vec::new(),
        refused: Vec::new(),
    })
}

fn service(raw: raw::Service, allowed: &[String]) -> Result<Service, Fault> {
    not_yet(&raw.kind, Kind::Dcdn, "kind = \"esa\"", "\"dcdn\"")?;
    if let Some(profile) = raw.profile.as_ref().filter(|p| p.get_ref().is_empty()) {
        return Err(Fault::at(profile.span(), "a profile has a name"));
    }
    let endpoint: Endpoint = endpoint::check(
        &raw.endpoint
            .unwrap_or_else(|| Spanned::new(0..0, ENDPOINT.to_owned())),
        allowed,
    )?;
    Ok(Service {
        kind: raw.kind.map(Spanned::into_inner).unwrap_or_default(),
        endpoint,
        signature: raw.signature.unwrap_or_default(),
        profile: raw.profile.map(Spanned::into_inner),
    })
}

fn limits(raw: &raw::Limits) -> Result<Limits, Fault> {
    let bounds = 1..=MAX_ARRIVALS;
    let limits = Limits {
        requests_per_second: number(
            &raw.requests_per_second,
            "requests_per_second",
            REQUESTS_PER_SECOND,
            &bounds,
        )?,
        burst: number(&raw.burst, "burst", BURST, &bounds)?,
        max_in_flight: number(&raw.max_in_flight, "max_in_flight", MAX_IN_FLIGHT, &bounds)?,
    };
    let sum = limits.requests_per_second + limits.burst + limits.max_in_flight;
    if sum > MAX_ARRIVALS {
        let message = format!(
            "requests_per_second {} + burst {} + max_in_flight {} = {sum}, and {MAX_ARRIVALS} is the most",
            limits.requests_per_second, limits.burst, limits.max_in_flight
        );
        let help = format!(
            "lower them by {} together: so many requests could reach the service in one second, and it refuses 100",
            sum - MAX_ARRIVALS
        );
        let written = [&raw.requests_per_second, &raw.burst, &raw.max_in_flight];
        return Err(first_written(&written, message).help(help));
    }
    Ok(limits)
}

fn watch(raw: raw::Watch, text: &str) -> Result<Watch, Fault> {
    let debounce = period(&raw.debounce, "debounce", DEBOUNCE, &DEBOUNCE_BOUNDS)?;
    let max_wait = period(&raw.max_wait, "max_wait", MAX_WAIT, &MAX_WAIT_BOUNDS)?;
    if max_wait < debounce {
        let (max_wait, debounce) = (written(max_wait), written(debounce));
        let message = format!("max_wait is {max_wait}, shorter than debounce, which is {debounce}");
        return Err(first_written(&[&raw.max_wait, &raw.debounce], message)
            .help(format!("set `max_wait` to at least \"{debounce}\"")));
    }
    let rescan = period(&raw.rescan, "rescan", RESCAN, &RESCAN_BOUNDS)?;
    let poll_interval = period(
        &raw.poll_interval,
        "poll_interval",
        POLL_INTERVAL,
        &POLL_BOUNDS,
    )?;
    let mut ignore = Vec::new();
    for pattern in raw.ignore {
        GitignoreBuilder::new("/")
            .add_line(None, pattern.get_ref())
            .map_err(|error| bad_pattern(&pattern, &error))?;
        ignore.push(Pattern {
            line: line_of(text, pattern.span().start),
            text: pattern.into_inner(),
        });
    }
    Ok(Watch {
        debounce,
        max_wait,
        rescan,
        backend: raw.backend.unwrap_or(Backend::Auto),
        poll_interval,
        ignore,
    })
}

fn revisions(raw: raw::Revisions) -> Result<Revisions, Fault> {
    let cap = number(&raw.cap, "cap", MAX_CAP, &(1..=MAX_CAP))?;
    let reserve = number(&raw.reserve, "reserve", RESERVE, &(0..=MAX_CAP))?;
    let keep_newest = number(&raw.keep_newest, "keep_newest", KEEP_NEWEST, &(0..=MAX_CAP))?;
    if reserve >= cap {
        let message = format!("reserve is {reserve}, and must be smaller than cap, which is {cap}");
        return Err(first_written(&[&raw.reserve, &raw.cap], message)
            .help("nothing could ever be uploaded; the defaults are cap = 10 and reserve = 1"));
    }
    if keep_newest >= cap - reserve {
        let message = format!(
            "keep_newest is {keep_newest}, and must be smaller than cap - reserve, which is {}",
            cap - reserve
        );
        return Err(
            first_written(&[&raw.keep_newest, &raw.reserve, &raw.cap], message)
                .help("otherwise a full routine has no version that rotation may take"),
        );
    }
    let mut pin = Vec::new();
    for pattern in raw.pin {
        globset::Glob::new(pattern.get_ref()).map_err(|error| bad_pattern(&pattern, &error))?;
        if pattern.get_ref().is_empty() {
            return Err(bad_pattern(&pattern, &"it is empty"));
        }
        pin.push(pattern.into_inner());
    }
    Ok(Revisions {
        cap,
        reserve,
        keep_newest,
        rotate: raw.rotate.unwrap_or(Rotate::Any),
        pin,
        verify: raw.verify.unwrap_or(Verify::Doubt),
    })
}

fn daemon(raw: &raw::Daemon) -> Result<Daemon, Fault> {
    let listen = raw.listen.as_ref().map(|listen| {
        let fault = |message| Fault::at(listen.span(), message);
        match listen.get_ref().parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(address),
            Ok(_) => {
                Err(fault("the status page is for this machine only")
                    .help("use 127.0.0.1 or [::1]"))
            }
            Err(_) => {
                Err(fault("not an address with a port").help("write it like \"127.0.0.1:9477\""))
            }
        }
    });
    Ok(Daemon {
        listen: listen.transpose()?,
        drain: period(&raw.drain, "drain", DRAIN, &DRAIN_BOUNDS)?,
    })
}

/// Refuses a value whose feature is still to come.
fn not_yet<T: PartialEq>(
    value: &Option<Spanned<T>>,
    now: T,
    what: &str,
    instead: &str,
) -> Result<(), Fault> {
    match value {
        Some(value) if *value.get_ref() != now => Err(Fault::at(
            value.span(),
            format!("{what} is not available yet"),
        )
        .help(format!("leave it out or set it to {instead}"))),
        _ => Ok(()),
    }
}

fn number<N: TryFrom<i64> + PartialOrd + fmt::Display>(
    value: &Option<Spanned<i64>>,
    key: &str,
    default: N,
    bounds: &RangeInclusive<N>,
) -> Result<N, Fault> {
    let Some(value) = value else {
        return Ok(default);
    };
    N::try_from(*value.get_ref())
        .ok()
        .filter(|number| bounds.contains(number))
        .ok_or_else(|| {
            let message = format!("`{key}` is {}", value.get_ref());
            Fault::at(value.span(), message).help(format!(
                "it can be {} to {}",
                bounds.start(),
                bounds.end()
            ))
        })
}

pub(super) fn period(
    value: &Option<Spanned<Period>>,
    key: &str,
    default: Duration,
    bounds: &RangeInclusive<Duration>,
) -> Result<Duration, Fault> {
    let Some(value) = value else {
        return Ok(default);
    };
    let Period(length) = *value.get_ref();
    if bounds.contains(&length) {
        return Ok(length);
    }
    let (least, most) = (written(*bounds.start()), written(*bounds.end()));
    Err(
        Fault::at(value.span(), format!("`{key}` is {}", written(length)))
            .help(format!("it can be \"{least}\" to \"{most}\"")),
    )
}

fn written(length: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(length)
}

pub(super) fn bad_pattern(pattern: &Spanned<String>, error: &dyn fmt::Display) -> Fault {
    Fault::at(pattern.span(), format!("not a pattern: {error}"))
}

/// A fault of several keys together, shown at the first of them that the file sets.
fn first_written<T>(values: &[&Option<Spanned<T>>], message: impl Into<String>) -> Fault {
    match values.iter().find_map(|value| value.as_ref()) {
        Some(value) => Fault::at(value.span(), message),
        None => Fault::somewhere(message),
    }
}
