//! Keys that stand in code. Pure.
//!
//! Whoever can read a version can read what stands in it, and a version cannot be taken back for sure. So code that
//! holds a key of Alibaba Cloud or a private key is refused. What is found is told by its place alone: nothing here
//! hands the text itself on.
//!
//! It goes by the text and not by the syntax, since a key in a comment is given away as well, and since it holds for
//! code that is not parsed. It takes one pass; from each place where something may begin it looks a bounded way further.

/// The name of the identifiers of long-lived keys, in front of the rest of them.
const KEY_ID: &[u8] = b"LTAI";

/// How many letters and digits follow it.
const KEY_ID_REST: std::ops::RangeInclusive<usize> = 12..=26;

/// The same of temporary keys.
const TOKEN_ID: &[u8] = b"STS.";

/// How many letters and digits follow that.
const TOKEN_ID_REST: std::ops::RangeInclusive<usize> = 16..=40;

/// How long the secret of a key is. It has no mark of its own and counts behind a name only that says what it is.
const KEY_SECRET: usize = 30;

/// The longest such name that is looked at, in bytes.
const MAX_NAME: usize = 64;

/// The farthest that a value stands from its name, and a private key from its header.
const MAX_GAP: usize = 64;

/// What begins a private key, around the word for its kind.
const HEADER: (&[u8], &[u8]) = (b"-----BEGIN ", b"PRIVATE KEY-----");

/// The kinds, as they stand in a header.
const KINDS: [&[u8]; 6] = [b"", b"RSA ", b"EC ", b"DSA ", b"OPENSSH ", b"ENCRYPTED "];

/// How much of a private key has to follow where its header is a text of its own. Code that reads such keys has
/// headers, too.
const BODY: usize = 32;

/// A key in code, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secret {
    /// What it is, with its article.
    pub what: &'static str,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
}

/// The first key that stands in code.
pub fn find(code: &str) -> Option<Secret> {
    let bytes = code.as_bytes();
    let (at, what) = bytes.iter().enumerate().find_map(|(at, byte)| {
        let what = match byte {
            b'L' => is_id(bytes, at, KEY_ID, KEY_ID_REST).then_some("an access key")?,
            b'S' if is_token_id(bytes, at) => "a temporary access key",
            b'S' | b's' => is_key_secret(bytes, at).then_some("the secret of an access key")?,
            b'-' => is_private_key(bytes, at).then_some("a private key")?,
            _ => return None,
        };
        Some((at, what))
    })?;
    // All of them begin with a character of one byte.
    let before = &code[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Some(Secret {
        what,
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    })
}

/// Whether an identifier stands alone at a place: a mark and the right number of letters and digits.
fn is_id(bytes: &[u8], at: usize, mark: &[u8], rest: std::ops::RangeInclusive<usize>) -> bool {
    let Some(after) = bytes[at..].strip_prefix(mark) else {
        return false;
    };
    // Behind `+` and `/` it is rather a part of something in base64.
    let begins = at == 0 || !(is_word(bytes[at - 1]) || matches!(bytes[at - 1], b'+' | b'/'));
    let length = run(after, *rest.end() + 1, u8::is_ascii_alphanumeric);
    begins && rest.contains(&length) && !after.get(length).copied().is_some_and(is_word)
}

/// Whether it is the identifier of a temporary key and not the member of something that is called STS.
fn is_token_id(bytes: &[u8], at: usize) -> bool {
    if !is_id(bytes, at, TOKEN_ID, TOKEN_ID_REST) {
        return false;
    }
    let id = &bytes[at + TOKEN_ID.len()..];
    let id = &id[..run(id, *TOKEN_ID_REST.end(), u8::is_ascii_alphanumeric)];
    let has = |kind: fn(&u8) -> bool| id.iter().any(kind);
    has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && id[0].is_ascii_uppercase()
}

/// Whether the word `secret` at a place is a part of the name of a key's secret and such a text follows.
fn is_key_secret(bytes: &[u8], at: usize) -> bool {
    const WORD: usize = b"secret".len();
    let is_here = |bytes: &[u8]| {
        let word = bytes.get(..WORD);
        word.is_some_and(|word| word.eq_ignore_ascii_case(b"secret"))
    };
    if !is_here(&bytes[at..]) {
        return false;
    }
    let part = |byte: &u8| is_word(*byte) || *byte == b'-';
    let after = run(&bytes[at..], MAX_NAME, part);
    let rest = &bytes[at + after..];
    let between = |byte: &u8| {
        byte.is_ascii_whitespace()
            || matches!(
                byte,
                b'"' | b'\'' | b'`' | b'\\' | b']' | b':' | b'=' | b',' | b'('
            )
    };
    let gap = run(rest, MAX_GAP, between);
    let is_quoted = matches!(rest[..gap].last(), Some(b'"' | b'\'' | b'`'));
    let value = run(&rest[gap..], KEY_SECRET + 1, u8::is_ascii_alphanumeric);
    let ends = !rest.get(gap + value).copied().is_some_and(is_word);
    if !(is_quoted && value == KEY_SECRET && ends) {
        return false;
    }
    let before = bytes[..at].iter().rev().take(MAX_NAME);
    let before = before.take_while(|byte| part(byte)).count();
    let name = bytes[at - before..at + after].to_ascii_lowercase();
    let says = |word: &[u8]| name.windows(word.len()).any(|part| part == word);
    says(b"key") || says(b"access")
}

/// Whether the header of a private key stands at a place, with something of the key behind it. Alone it is what code
/// has that reads such keys, or puts one together from a secret that is kept elsewhere.
fn is_private_key(bytes: &[u8], at: usize) -> bool {
    let Some(kind) = bytes[at..].strip_prefix(HEADER.0) else {
        return false;
    };
    let mut kinds = KINDS.iter().filter_map(|it| kind.strip_prefix(*it));
    let Some(rest) = kinds.find_map(|rest| rest.strip_prefix(HEADER.1)) else {
        return false;
    };
    let (mut gap, mut is_closed) = (0, false);
    while gap < MAX_GAP {
        gap += match rest.get(gap..).unwrap_or_default() {
            [b'\\', b'n' | b'r' | b'\n' | b'\\', ..] => 2,
            [b'"' | b'\'' | b'`', ..] => {
                is_closed = true;
                1
            }
            [b'\\' | b'+' | b',', ..] => 1,
            [byte, ..] if byte.is_ascii_whitespace() => 1,
            _ => break,
        };
    }
    let is_body = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let body = run(&rest[gap..], BODY, is_body);
    body >= if is_closed { BODY } else { 1 }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$')
}

/// How many bytes at the beginning are of a kind, counted up to a bound.
fn run(bytes: &[u8], most: usize, is: impl Fn(&u8) -> bool) -> usize {
    bytes.iter().take(most).take_while(|byte| is(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that looks like what a key is made of. Nothing like it may stand in the tree.
    fn random(length: usize) -> String {
        "Ab3".chars().cycle().take(length).collect()
    }

    fn key_id(length: usize) -> String {
        ["LT", "AI", &random(length)].concat()
    }

    fn token_id(length: usize) -> String {
        ["ST", "S.", &random(length)].concat()
    }

    fn header(kind: &str) -> String {
        ["-----BEG", "IN ", kind, "PRIVATE KEY", "-----"].concat()
    }

    #[track_caller]
    fn found(code: &str) -> &'static str {
        find(code).unwrap_or_else(|| panic!("{code}")).what
    }

    #[test]
    fn every_kind_of_key_is_found_wherever_it_stands() {
        for length in [12, 16, 20, 26] {
            let id = key_id(length);
            for code in [
                id.clone(),
                format!("const id = '{id}';"),
                format!("// {id}"),
                format!("x={{id:\"{id}\"}}"),
                format!("`?AccessKeyId={id}&a=b`"),
                format!("é\u{feff}{id}é"),
            ] {
                assert_eq!(found(&code), "an access key", "{code}");
            }
        }
        for length in [16, 25, 40] {
            let code = format!("const id = '{}';", token_id(length));
            assert_eq!(found(&code), "a temporary access key");
        }
        let secret = random(30);
        for code in [
            format!("{{ accessKeySecret: '{secret}' }}"),
            format!("c.accessKeySecret=\"{secret}\""),
            format!("const ALIBABA_CLOUD_ACCESS_KEY_SECRET = `{secret}`"),
            format!("JSON.parse(\"{{\\\"access-key-secret\\\":\\\"{secret}\\\"}}\")"),
            format!("env[\"SECRET_KEY\"]\n  = '{secret}'"),
            format!("secretAccessKey:'{secret}'"),
        ] {
            assert_eq!(found(&code), "the secret of an access key", "{code}");
        }
        for kind in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "] {
            let header = header(kind);
            let body = random(64);
            for code in [
                format!("`{header}\n{body}`"),
                format!("\"{header}\\n{body}\""),
                format!("'{header}\\\n{body}'"),
                format!("'{header}' +\n  '{body}'"),
                format!("['{header}', '{body}'].join('\\n')"),
                format!("/*\r\n{header}\r\nMII"),
            ] {
                assert_eq!(found(&code), "a private key", "{code}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_key_is_none() {
        let (id, secret) = (key_id(20), random(30));
        for code in [
            format!("a{id}"),
            format!("_{id}"),
            format!("{id}_b"),
            format!("AAAA+{id}"),
            key_id(11),
            key_id(27),
            id.to_lowercase(),
            "'emulator-key-id' 'emulator-key-secret'".into(),
            "STS.assumeRoleWithWebIdentity2(x)".into(),
            "new STS.Client(AssumeRole)".into(),
            format!("x.{}", token_id(15)),
            format!("accessKeySecret: {secret}"),
            format!("accessKeySecret: '{}'", random(29)),
            format!("accessKeySecret: '{}'", random(31)),
            format!("secret: '{secret}'"),
            format!("accessKey: '{secret}'"),
            "accessKeySecret: env.ACCESS_KEY_SECRET".into(),
            "accessKeySecret".into(),
            header(""),
            format!("pem.replace('{}', '').replace(/\\s/g, '')", header("")),
            format!("pem.indexOf(\"{}\")!==0", header("RSA ")),
            format!("`{}\\n${{env.KEY}}`", header("EC ")),
            format!("{{begin:'{}',title:'x'}}", header("")),
            header("").replace("PRIVATE", "PUBLIC") + "\nMII",
        ] {
            assert_eq!(find(&code), None, "{code}");
        }
    }

    #[test]
    fn the_first_key_is_told_by_its_line_and_column() {
        let code = format!("a\r\né = '{}'\n{}", key_id(20), key_id(16));
        let secret = find(&code).unwrap();
        assert_eq!((secret.line, secret.column), (2, 6));
        assert!(!format!("{secret:?}").contains("LTAI"));
    }

    #[test]
    fn code_of_the_largest_size_that_is_full_of_beginnings_is_looked_through_in_one_pass() {
        let size = usize::try_from(crate::routine::MAX_CODE_BYTES).unwrap();
        for part in [
            "LTAI",
            "STS.",
            "secret",
            "secretkey=",
            "accesskeysecret:'",
            "-----BEGIN ",
        ] {
            let code = part.repeat(size / part.len());
            let begun = std::time::Instant::now();
            assert_eq!(find(&code), None, "{part}");
            // A pass over the rest from each of them would take hours.
            assert!(begun.elapsed().as_secs() < 30, "{part}");
        }
    }
}
