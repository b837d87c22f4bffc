//! The keys that the emulated service lets in: its own, and those that a test adds, revokes or lets end. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::gateway::{Call, KEY_ID, KEY_SECRET};
use super::reply::Refusal;
use super::world::World;

/// The keys, by their ids.
#[derive(Debug)]
pub(super) struct Keys(BTreeMap<String, Key>);

#[derive(Debug)]
struct Key {
    secret: String,
    /// What must come with a temporary key, and when that ends.
    token: Option<(String, Timestamp)>,
    active: bool,
}

impl World {
    /// From now on this key is let in. A temporary one has a token and an end.
    pub fn let_in(&mut self, id: &str, secret: &str, token: Option<(&str, Timestamp)>) {
        let key = Key {
            secret: secret.to_owned(),
            token: token.map(|(token, ends)| (token.to_owned(), ends)),
            active: true,
        };
        self.gateway.keys.0.insert(id.to_owned(), key);
    }

    /// From now on this key is refused, as one is that was disabled in the console.
    pub fn revoke(&mut self, id: &str) {
        if let Some(key) = self.gateway.keys.0.get_mut(id) {
            key.active = false;
        }
    }
}

impl Keys {
    /// The secret of the key that a call names, if it may be used.
    ///
    /// The emulator has keys of its own, so that no real one is ever sent to it; one that is sent all the same gets a
    /// plain word, and is not repeated in it.
    pub(super) fn secret(&self, call: &Call, now: Timestamp) -> Result<&str, Refusal> {
        let id = call.need("AccessKeyId")?;
        if id.starts_with("LTAI") {
            let message = format!(
                "this is the emulator of er-dev, real access keys do not belong here; use the key id {KEY_ID}"
            );
            return Err(Refusal::new(404, "InvalidAccessKeyId.NotFound", message));
        }
        let Some(key) = self.0.get(id) else {
            let message = "there is no such access key";
            return Err(Refusal::new(404, "InvalidAccessKeyId.NotFound", message));
        };
        if !key.active {
            let message = "the access key is disabled";
            return Err(Refusal::new(400, "InvalidAccessKeyId.Inactive", message));
        }
        let refused = |code, message| Err(Refusal::new(403, code, message));
        match (&key.token, call.get("SecurityToken")) {
            (None, None) => {}
            (Some((token, ends)), Some(given)) if token == given => {
                if *ends <= now {
                    let message = "the security token has ended";
                    return refused("InvalidSecurityToken.Expired", message);
                }
            }
            _ => {
                let code = "InvalidSecurityToken.MismatchWithAccessKey";
                return refused(code, "the security token is not the one of this access key");
            }
        }
        Ok(&key.secret)
    }
}

impl Default for Keys {
    fn default() -> Self {
        let own = Key {
            secret: KEY_SECRET.to_owned(),
            token: None,
            active: true,
        };
        Self(BTreeMap::from([(KEY_ID.to_owned(), own)]))
    }
}
