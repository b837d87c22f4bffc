//! Which key would sign, where it was looked for, and why it is not from the other places: what `doctor` and
//! `config show` tell of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cloud::Authorities;
use crate::cloud::credentials::Credentials;
use crate::cloud::credentials::keys::Keys;
use crate::cloud::credentials::place::Looked;
use crate::config::Config;
use crate::report::words::span;

use super::env;

/// What became of the search for a key.
pub(super) struct Search {
    /// What became of it in each place.
    pub(super) looked: Vec<Looked>,
    /// The key, or why there is none.
    pub(super) keys: Result<Keys, String>,
    /// Whether it was given up because it took too long, and so says nothing.
    pub(super) late: bool,
}

/// Looks for the key of a configuration as every command does, but for so long at most.
pub(super) async fn search(
    config: Option<&Config>,
    authorities: Authorities,
    most: Duration,
) -> Search {
    let service = config.map(|config| &config.service);
    let profile = service.and_then(|service| service.profile.clone());
    let loopback = service.is_some_and(|service| service.endpoint.loopback);
    let mut looked = Vec::new();
    let searching = Keys::search(Arc::new(env), profile, loopback, authorities, &mut looked);
    match tokio::time::timeout(most, searching).await {
        Ok(keys) => Search {
            looked,
            keys: keys.map_err(|error| error.to_string()),
            late: false,
        },
        Err(_) => {
            let most = most.as_secs();
            let why = format!("the next place after these gave no key within {most} s");
            Search {
                looked,
                keys: Err(why),
                late: true,
            }
        }
    }
}

/// A key in words: what people may see of it, its kind, where it is from, and when it ends.
pub(super) fn words(key: &Credentials) -> String {
    let (id, kind, source) = (key.shown_id(), key.kind(), &key.source);
    let ends = match key.ends {
        None => "without an end that is known".to_owned(),
        Some(ends) => match Duration::try_from(ends.duration_since(Timestamp::now())) {
            Ok(left) => format!("ends in {} ({ends:.0})", span(left)),
            Err(_) => format!("has ended ({ends:.0})"),
        },
    };
    format!("{kind} {id} ({source}), {ends}")
}

/// The same for programs.
pub(super) fn object(key: &Credentials) -> Value {
    json!({
        "key": key.shown_id(),
        "kind": key.kind(),
        "source": key.source.to_string(),
        "ends": key.ends.map(|ends| ends.to_string()),
    })
}

/// The places for programs.
pub(super) fn places(looked: &[Looked]) -> Vec<Value> {
    let place = |it: &Looked| json!({ "place": it.place, "won": it.won, "why": it.why });
    looked.iter().map(place).collect()
}
