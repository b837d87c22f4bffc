//! The content mark in a version's description, both ways. Pure.
//!
//! The service keeps nothing about a version but its number, time and description, so the description says which bytes
//! a version was meant to hold: the user's text, then ` er1.<32 hex of sha256>.<8 hex instance>`. A mark is an
//! intention, not a proof: the version may have been made and its code never posted.

use super::template::shorten;
use crate::routine::{Code, Digest, Revision};

/// The longest text before the mark, in characters. The service's own limit is not documented; the mark is what must
/// survive, so the text is what is cut.
pub const MAX_TEXT_CHARS: usize = 120;

const PREFIX: &str = "er1.";
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const DIGEST_HEX: usize = 32;
const INSTANCE_HEX: usize = 8;

/// Which er-dev made a version: eight hexadecimal digits, one value a state directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(String);

impl Instance {
    /// Takes eight lower-case hexadecimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        is_hex(text, INSTANCE_HEX).then(|| Self(text.to_owned()))
    }

    /// The instance of a random number.
    pub fn from_number(number: u32) -> Self {
        Self(format!("{number:08x}"))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a description says of the code behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    digest: String,
    /// Which er-dev wrote it.
    pub instance: Instance,
}

impl Mark {
    /// Reads the mark at the end of a description; `None` where there is none, as in a version er-dev did not make.
    pub fn read(description: &str) -> Option<Self> {
        let word = description.rsplit(' ').next()?;
        let (digest, instance) = word.strip_prefix(PREFIX)?.split_once('.')?;
        let instance = Instance::parse(instance)?;
        is_hex(digest, DIGEST_HEX).then(|| Self {
            digest: digest.to_owned(),
            instance,
        })
    }

    /// Whether the version was meant to hold code with this digest.
    pub fn is_for(&self, digest: Digest) -> bool {
        digest.hex().starts_with(&self.digest)
    }

    /// Whether code that was read back is what the version was meant to hold. The service may have changed line ends and
    /// left out a byte order mark, so code is tried with those, too.
    pub fn fits(&self, code: &Code) -> bool {
        let lines = || {
            code.bytes()
                .split(|byte| *byte == b'\n')
                .collect::<Vec<_>>()
        };
        let crlf = lines().join(&b"\r\n"[..]);
        [code.bytes(), &crlf].iter().any(|bytes| {
            let marked = [BYTE_ORDER_MARK, bytes].concat();
            self.is_for(Digest::of(bytes)) || self.is_for(Digest::of(&marked))
        })
    }

    /// The first eight digits, the form people read in a line of output.
    pub fn short(&self) -> &str {
        &self.digest[..8]
    }
}

/// A description with its mark.
pub fn describe(text: &str, digest: Digest, instance: &Instance) -> String {
    let mut description: String = shorten(text, MAX_TEXT_CHARS)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if !description.is_empty() {
        description.push(' ');
    }
    description.push_str(PREFIX);
    description.push_str(&digest.hex()[..DIGEST_HEX]);
    description.push('.');
    description.push_str(instance.as_str());
    description
}

/// A description without its mark, as its author wrote it.
pub fn text_of(description: &str) -> &str {
    match Mark::read(description) {
        Some(_) => description.rsplit_once(' ').map_or("", |(text, _)| text),
        None => description,
    }
}

/// What stands behind the text of a version that was restored.
const NOTE: &str = " (restored, was ";

/// The text for a version that is restored: what it was called before, and which version that was.
pub fn restored_text(description: &str, was: &Revision) -> String {
    let note = format!("{NOTE}{was})");
    let room = MAX_TEXT_CHARS.saturating_sub(note.chars().count());
    let text = shorten(without_note(text_of(description)), room);
    format!("{text}{note}").trim_start().to_owned()
}

/// A text without the note of an earlier restoring.
pub fn without_note(text: &str) -> &str {
    match text.rsplit_once(NOTE) {
        Some((text, rest)) if rest.ends_with(')') => text,
        _ => text.strip_prefix(NOTE.trim_start()).map_or(text, |_| ""),
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        Instance::from_number(0x00c0_ffee)
    }

    #[test]
    fn a_mark_is_at_most_48_bytes() {
        let bare = describe("", Digest::of(b"x"), &instance());
        assert_eq!(bare.len(), 45);
        assert!(bare.ends_with(".00c0ffee"));
    }

    #[test]
    fn the_note_of_a_restored_version_is_never_cut_and_never_stands_twice() {
        let was = Revision::new("1622467214654495147");
        let long = "x".repeat(200);
        for text in ["by hand", "", &long, "(odd) (restored, was that)x"] {
            let once = restored_text(&describe(text, Digest::of(b"x"), &instance()), &was);
            assert!(
                once.ends_with("(restored, was 1622467214654495147)"),
                "{once}"
            );
            assert!(once.chars().count() <= MAX_TEXT_CHARS);
            assert_eq!(restored_text(&once, &was), once);
            let kept: String = text.chars().take(80).collect();
            assert!(once.starts_with(&kept), "{once}");
        }
    }

    #[test]
    fn code_fits_its_mark_also_when_line_ends_and_byte_order_mark_were_normalised() {
        for original in [
            "a;\nb;",
            "a;\r\nb;\r\n",
            "\u{feff}a;\nb;",
            "\u{feff}a;\r\nb;",
        ] {
            let mark = describe("", Digest::of(original.as_bytes()), &instance());
            let mark = Mark::read(&mark).unwrap();
            let normalised = original
                .trim_start_matches('\u{feff}')
                .replace("\r\n", "\n");
            for (code, fits) in [(original, true), (&normalised, true), ("a;\nc;", false)] {
                let code = Code::new(code.as_bytes().to_vec());
                assert_eq!(mark.fits(&code), fits, "{original:?} {code:?}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_mark_is_none() {
        let digest = &Digest::of(b"x").hex()[..32];
        for odd in [
            String::new(),
            "er1.".into(),
            format!("er1.{digest}"),
            format!("er1.{digest}."),
            format!("er1.{digest}.0000000"),
            format!("er1.{digest}.000000000"),
            format!("er1.{}.00000000", digest.to_uppercase()),
            format!("er2.{digest}.00000000"),
            format!("er1.{digest}.00000000 later words"),
            format!("xer1.{digest}.00000000"),
        ] {
            assert_eq!(Mark::read(&odd), None, "{odd}");
            assert_eq!(text_of(&odd), odd);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_was_marked_is_found_again(text in ".{0,200}", code in ".*", number: u32) {
            let digest = Digest::of(code.as_bytes());
            let instance = Instance::from_number(number);
            let description = describe(&text, digest, &instance);
            let mark = Mark::read(&description).unwrap();
            proptest::prop_assert!(mark.is_for(digest));
            proptest::prop_assert!(!mark.is_for(Digest::of(description.as_bytes())));
            proptest::prop_assert_eq!(mark.instance, instance);
            proptest::prop_assert!(text_of(&description).chars().count() <= MAX_TEXT_CHARS);
            proptest::prop_assert!(!description.chars().any(char::is_control));
        }
    }
}
