//! Gathers what a version is called, at the moment it is uploaded.

use crate::revision::git::Found;
use crate::revision::mark;
use crate::revision::template::{self, Facts};
use crate::routine::{Code, Digest};

use super::Session;

impl Session {
    /// The description of a version that holds this code: the user's template, filled, and the content mark.
    pub(super) async fn describe(&self, code: &Code) -> String {
        let words = match &self.words {
            Some(words) => words.clone(),
            // Nobody has to ask git for what is not said.
            None if self.mark_only => String::new(),
            None => template::fill(&self.routine.description, &self.facts(code).await),
        };
        self.describe_with(&words, code.digest())
    }

    /// The same in words that the user chose for this version alone.
    pub(super) fn describe_with(&self, words: &str, digest: Digest) -> String {
        let words = if self.mark_only { "" } else { words };
        mark::describe(words, digest, &self.settings.rules.instance)
    }

    async fn facts(&self, code: &Code) -> Facts {
        let (entry, template) = (&self.routine.entry, &self.routine.description);
        let asks_git = ["git", "branch"].map(|name| template::names(template, name));
        let found = if asks_git.contains(&true) {
            self.git.ask(entry, code).await
        } else {
            Found::default()
        };
        let file = entry.file_name().map(|name| name.to_string_lossy());
        let host = rustix::system::uname();
        Facts {
            file: file.unwrap_or_default().into_owned(),
            commit: found.commit,
            branch: found.branch,
            user: user(),
            host: host.nodename().to_string_lossy().into_owned(),
            time: format!("{:.0}", jiff::Timestamp::now()),
        }
    }
}

/// Who runs this program, as the environment says; empty where it does not.
fn user() -> String {
    let names = ["USER", "LOGNAME"].into_iter().filter_map(std::env::var_os);
    let mut names = names.map(|name| name.to_string_lossy().into_owned());
    names.find(|name| !name.is_empty()).unwrap_or_default()
}
