//! A key whose parts must appear nowhere, and the writings in which they are looked for.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::common::Bed;

/// A temporary key that the emulator lets in.
pub(crate) struct Canary {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
    needles: Vec<(String, String)>,
}

impl Canary {
    pub(crate) fn let_into(bed: &Bed) -> Self {
        // What every writing writes in another way is part of it.
        let part = |name: &str| format!("{name}+/=\"\\~%{:032x}", fastrand::u128(..));
        let (id, secret, token) = (part("id"), part("secret"), part("token"));
        let ends = jiff::Timestamp::now() + std::time::Duration::from_secs(3_600);
        bed.emulator
            .with_world(|world| world.let_in(&id, &secret, Some((&token, ends))));
        let needles = [("id", &id), ("secret", &secret), ("token", &token)];
        let needles = needles.iter().flat_map(|(name, part)| writings(name, part));
        Self {
            needles: needles.collect(),
            id,
            secret,
            token,
        }
    }

    /// Puts it where systemd would.
    pub(crate) fn put(&self, bed: &Bed) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = bed.path("keys");
        std::fs::create_dir_all(&dir).unwrap();
        for (name, part) in [
            ("access_key_id", &self.id),
            ("access_key_secret", &self.secret),
            ("security_token", &self.token),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, part).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        }
        dir.display().to_string()
    }

    /// Looks for every part in every writing. `place` is said of what is found; the find is not.
    #[track_caller]
    pub(crate) fn assert_not_in(&self, place: &str, bytes: &[u8]) {
        for (name, needle) in &self.needles {
            let found = bytes
                .windows(needle.len())
                .any(|it| it == needle.as_bytes());
            assert!(
                !found,
                "{place} holds the {name}:\n{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    /// The same in every file and every name below a directory. Returns how many bytes there were.
    #[track_caller]
    pub(crate) fn assert_not_below(&self, dir: &Path) -> usize {
        let mut bytes = 0;
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            self.assert_not_in("a name", path.as_os_str().as_encoded_bytes());
            if path.is_dir() {
                bytes += self.assert_not_below(&path);
            } else if path.is_file() {
                let content = std::fs::read(&path).unwrap_or_default();
                self.assert_not_in(&path.display().to_string(), &content);
                bytes += content.len();
            }
        }
        bytes
    }
}

/// A part in every writing.
fn writings(name: &str, part: &str) -> Vec<(String, String)> {
    let encode = |text: &str| er_dev::cloud::sign::encode(text);
    let once = encode(part);
    let hex: String = part.bytes().map(|byte| format!("{byte:02x}")).collect();
    let json = serde_json::to_string(part).unwrap();
    let mut all = vec![
        ("as it is", part.to_owned()),
        ("percent-encoded twice", encode(&once)),
        ("percent-encoded", once),
        ("in hexadecimal", hex.clone()),
        ("in capital hexadecimal", hex.to_uppercase()),
        ("in JSON", json[1..json.len() - 1].to_owned()),
        ("in JSON in JSON", escaped_twice(&json)),
        // Its random end alone, should what comes before it be written in yet another way.
        ("its end", part[part.len() - 24..].to_owned()),
    ];
    for shift in 0..3 {
        all.push(("in base64", base64(part, shift)));
    }
    let named = all.into_iter();
    named
        .map(|(how, text)| (format!("{name} {how}"), text))
        .collect()
}

fn escaped_twice(json: &str) -> String {
    let twice = serde_json::to_string(&json[1..json.len() - 1]).unwrap();
    twice[1..twice.len() - 1].to_owned()
}

/// What of the base64 of any text is sure to be there if the part begins so many bytes after a multiple of three.
fn base64(part: &str, shift: usize) -> String {
    let padded = [&vec![0; shift][..], part.as_bytes()].concat();
    let whole = STANDARD_NO_PAD.encode(&padded);
    let begin = [0, 2, 3][shift];
    let end = whole.len() - usize::from(padded.len() % 3 != 0);
    whole[begin..end].to_owned()
}

#[test]
fn a_part_is_found_in_every_writing() {
    let part = format!("a+/=\"{:032x}", fastrand::u128(..));
    let needles = writings("part", &part);
    let json = serde_json::json!({ "a": part }).to_string();
    let mut texts = vec![
        json.clone(),
        serde_json::json!(json).to_string(),
        format!("{part:?}"),
    ];
    for before in ["", "x", "xy", "xyz"] {
        for after in ["", "x", "xy"] {
            texts.push(STANDARD_NO_PAD.encode(format!("{before}{part}{after}")));
        }
    }
    for text in texts {
        assert!(
            needles.iter().any(|(_, needle)| text.contains(needle)),
            "{text}"
        );
    }
}
