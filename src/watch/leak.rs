//! Whether code holds what must not be published with it: a key of the cloud, or a private key. Pure.
//!
//! Only what has an unmistakable form is looked for, since a refusal that is wrong costs more trust than it saves. What was
//! found is never repeated; its line is enough to find it again.

/// Something that must not go up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leak {
    /// The line it is in, counted from 1.
    pub line: usize,
    /// What it looks like, with its article.
    pub what: &'static str,
}

/// How ids of keys begin, and how many letters and digits at least follow (facts of the service): those of a user, and
/// those of temporary keys.
const KEY_IDS: [(&str, usize, &str); 2] = [
    ("LTAI", 12, "an access key id of Alibaba Cloud"),
    ("STS.", 20, "the id of a temporary key of Alibaba Cloud"),
];

/// What stands around the kind of a key in the first line of its PEM form.
const PEM: [&str; 2] = ["-----BEGIN ", "PRIVATE KEY-----"];

/// The first leak in a text.
pub fn find(text: &str) -> Option<Leak> {
    text.lines().enumerate().find_map(|(index, line)| {
        let what = in_line(line)?;
        let line = index + 1;
        Some(Leak { line, what })
    })
}

fn in_line(line: &str) -> Option<&'static str> {
    for (begin, least, what) in KEY_IDS {
        let is_id = |(at, _): (usize, &str)| {
            let before = line[..at].chars().next_back();
            let begins = before.is_none_or(|c| !c.is_ascii_alphanumeric());
            let after = line[at + begin.len()..].chars();
            begins && after.take_while(char::is_ascii_alphanumeric).count() >= least
        };
        if line.match_indices(begin).any(is_id) {
            return Some(what);
        }
    }
    let [begin, end] = PEM;
    let is_header = |(at, _): (usize, &str)| {
        let kind = line[at + begin.len()..]
            .split(end)
            .next()
            .unwrap_or_default();
        let is_word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ';
        line[at + begin.len() + kind.len()..].starts_with(end) && kind.chars().all(is_word)
    };
    let found = line.match_indices(begin).any(is_header);
    found.then_some("a private key")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What would be refused is put together here, so that none of it stands in the tree.
    fn joined(parts: &[&str]) -> String {
        parts.concat()
    }

    #[test]
    fn f05_a_key_of_the_cloud_and_a_private_key_are_found_by_their_line() {
        let id = joined(&["LTA", "I5tAbCdEfGh1234567Qx2"]);
        let temporary = joined(&["ST", "S.NUabcdefghijklmnopqrstu"]);
        let pem = |kind: &str| joined(&["-----BEG", "IN ", kind, "PRIV", "ATE KEY-----"]);
        for (found, what) in [
            (format!("const id = '{id}';"), "an access key"),
            (id.clone(), "an access key"),
            (format!("x(\"{temporary}\")"), "a temporary key"),
            (pem(""), "a private key"),
            (format!("`{}", pem("RSA ")), "a private key"),
            (format!("\"{}\\n\"", pem("EC ")), "a private key"),
            (pem("ENCRYPTED "), "a private key"),
        ] {
            let leak = find(&format!("// one\n\n{found}\n// four\n")).unwrap();
            assert_eq!(leak.line, 3, "{what}");
            assert!(leak.what.contains(what.trim_start_matches("a ")), "{what}");
            assert!(!leak.what.contains(&found));
        }
    }

    #[test]
    fn what_only_resembles_a_key_goes_up() {
        for fine in [
            joined(&["LTA", "Ishort"]),
            joined(&["xLTA", "I5tAbCdEfGh1234567Qx2"]),
            joined(&["ST", "S.short"]),
            joined(&["-----BEG", "IN PUBLIC KEY-----"]),
            joined(&["-----BEG", "IN CERTIFICATE-----"]),
            joined(&["-----BEG", "IN ${kind} PRIV", "ATE KEY-----"]),
            "addEventListener(\"fetch\", () => {})".into(),
            String::new(),
        ] {
            assert_eq!(find(&fine), None, "{fine}");
        }
    }
}
