//! The command of a profile that prints a key (the mode External of the aliyun command line tool).
//!
//! It is no shell's: its words are separated by spaces, and kept together by quotes. It gets those variables that a log-in
//! needs, and none that could hold a secret.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::environment;
use crate::secrets::Text;

/// How long a command may take. It may ask a person in a browser.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The most that is read of what it prints, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Runs it to its end and returns what it printed. What it says on its standard error is not looked at, since it could
/// be anything.
pub(super) async fn run(
    line: &str,
    env: &(dyn Fn(&str) -> Option<String> + Send + Sync),
) -> Result<Text, String> {
    let words = words(line)?;
    let (program, arguments) = words.split_first().ok_or("the command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment::of_command(env))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("the command cannot be run: {error}"))?;
    let stdout = child.stdout.take();
    let ended = async {
        let mut bytes = Zeroizing::new(Vec::new());
        if let Some(stdout) = stdout {
            let mut stdout = stdout.take(MAX_BYTES + 1);
            stdout.read_to_end(&mut bytes).await?;
        }
        if bytes.len() as u64 > MAX_BYTES {
            return Ok((bytes, None));
        }
        Ok::<_, std::io::Error>((bytes, Some(child.wait().await?)))
    };
    let ended = tokio::time::timeout(TIMEOUT, ended)
        .await
        .map_err(|_| format!("the command took longer than {} s", TIMEOUT.as_secs()))?;
    match ended.map_err(|error| format!("the command cannot be read: {error}"))? {
        (_, None) => Err("the command printed more than any key has".into()),
        (_, Some(status)) if !status.success() => Err(format!("the command failed ({status})")),
        (mut bytes, Some(_)) => match String::from_utf8(std::mem::take(&mut *bytes)) {
            Ok(text) => Ok(Text::new(text)),
            Err(_) => Err("the command printed no text".into()),
        },
    }
}

/// The words of a command, as POSIX shells read them where nothing is to be expanded.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => {
                let escaped = chars.next().ok_or("the command ends in a backslash")?;
                word.get_or_insert_default().push(escaped);
            }
            (Some('"'), '\\') => {
                let escaped = chars.next().ok_or("the command has an open quote")?;
                let word = word.get_or_insert_default();
                if !matches!(escaped, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(escaped);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("the command has an open quote");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_separated_by_spaces_and_kept_together_by_quotes() {
        for (line, expected) in [
            ("get-key", &["get-key"][..]),
            ("  get-key \t--now  ", &["get-key", "--now"]),
            (
                "'/my tools/get' -x \"a b\"c",
                &["/my tools/get", "-x", "a bc"],
            ),
            (r"a\ b \'c", &["a b", "'c"]),
            (r#""a\"b" "c\d" '\'"#, &["a\"b", r"c\d", r"\"]),
            ("a '' $HOME;x|y", &["a", "", "$HOME;x|y"]),
            ("", &[]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        for open in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(words(open).is_err(), "{open}");
        }
    }
}
