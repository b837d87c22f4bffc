//! Which routines there are: each file that the configuration names, or that fits one of its patterns, claims a name, and
//! a name that two files claim is nobody's until one of them goes.
//!
//! It looks at no file. What it is told of one turns some claims, and those turns are all that anybody else has to know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::routine::{NameError, RoutineName};

/// All claims, numbered in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claims: Vec<Claim>,
    /// The names that several claim, with the claims that this was last said of.
    contested: BTreeMap<RoutineName, Vec<usize>>,
}

#[derive(Debug)]
struct Claim {
    name: RoutineName,
    file: PathBuf,
    /// The file as people read it.
    shown: String,
    /// The number of the pattern that the file fits. Without one it is named, and claims its name even when it is missing.
    glob: Option<usize>,
    /// The file is there.
    present: bool,
    /// It has the name.
    holds: bool,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// This one holds its name now.
    Came(usize),
    /// This one no longer does, and why.
    Left(usize, String),
    /// Nobody holds the name: what is wrong, and what to do.
    Contested(String, String),
}

impl Claims {
    /// Makes a claim; with those turns that have to be told of.
    pub(super) fn add(
        &mut self,
        name: RoutineName,
        file: PathBuf,
        shown: String,
        glob: Option<usize>,
        present: bool,
    ) -> Vec<Turn> {
        self.claims.push(Claim {
            name: name.clone(),
            file,
            shown,
            glob,
            present,
            holds: false,
        });
        self.decide(&name)
    }

    /// Whether a file that fits a pattern has a claim, or is one that is named.
    pub(super) fn knows(&self, glob: usize, file: &Path) -> bool {
        let same = |claim: &Claim| claim.glob.is_none_or(|it| it == glob) && claim.file == file;
        self.claims.iter().any(same)
    }

    /// Whether a claim holds its name.
    pub(super) fn holds(&self, claim: usize) -> bool {
        self.claims.get(claim).is_some_and(|claim| claim.holds)
    }

    /// Takes over whether the file of a claim is there.
    pub(super) fn set_present(&mut self, claim: usize, present: bool) -> Vec<Turn> {
        let Some(claim) = self
            .claims
            .get_mut(claim)
            .filter(|claim| claim.glob.is_some())
        else {
            return Vec::new();
        };
        if claim.present == present {
            return Vec::new();
        }
        claim.present = present;
        let name = claim.name.clone();
        self.decide(&name)
    }

    fn decide(&mut self, name: &RoutineName) -> Vec<Turn> {
        let all = self.claims.iter().enumerate();
        let all: Vec<usize> = all
            .filter(|(_, claim)| claim.name == *name)
            .map(|(number, _)| number)
            .collect();
        let stands = |&number: &usize| {
            let claim = self.claims.get(number);
            claim.is_some_and(|claim| claim.glob.is_none() || claim.present)
        };
        let standing: Vec<usize> = all.iter().copied().filter(stands).collect();
        let mut turns = Vec::new();
        let alone = match standing[..] {
            [one] => Some(one),
            _ => None,
        };
        if standing.len() < 2 {
            self.contested.remove(name);
        } else if self.contested.get(name) != Some(&standing) {
            let files: Vec<&str> = standing
                .iter()
                .filter_map(|&number| self.claims.get(number))
                .map(|claim| claim.shown.as_str())
                .collect();
            let (what, help) = contest(name, &files);
            turns.push(Turn::Contested(what, help));
            self.contested.insert(name.clone(), standing);
        }
        for number in all {
            if let Some(claim) = self.claims.get_mut(number)
                && claim.holds
                && alone != Some(number)
            {
                claim.holds = false;
                let why = match claim.present {
                    true => format!("`{}` is not the only file of that name", claim.shown),
                    false => format!("`{}` is gone", claim.shown),
                };
                turns.push(Turn::Left(number, why));
            }
        }
        if let Some(number) = alone
            && let Some(claim) = self.claims.get_mut(number)
            && !std::mem::replace(&mut claim.holds, true)
        {
            turns.push(Turn::Came(number));
        }
        turns
    }
}

/// What is left of turns in a row when nobody has to hear of a claim that came and left again.
pub(super) fn net(turns: Vec<Turn>) -> Vec<Turn> {
    let mut left = Vec::new();
    for turn in turns {
        let before = match &turn {
            Turn::Left(number, _) => left.iter().position(|it| *it == Turn::Came(*number)),
            _ => None,
        };
        match before {
            Some(at) => {
                left.remove(at);
            }
            None => left.push(turn),
        }
    }
    left
}

/// What is wrong when several files claim a name, and what to do.
pub(super) fn contest(name: &RoutineName, files: &[&str]) -> (String, String) {
    let files = files.join("` and `");
    (
        format!("`{files}` would all be the routine `{name}`, so none of them goes up"),
        "rename or remove all but one of them".into(),
    )
}

/// What is wrong with a file whose name is that of no routine, and what to do.
pub(super) fn unnamed(shown: &str, error: &NameError) -> (String, String) {
    (
        format!("`{shown}` cannot be a routine: {error}"),
        "rename the file, or leave it out with `ignore` in [watch]".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds the claim of a file that is named after its stem.
    fn add(claims: &mut Claims, file: &str, found: bool) -> Vec<Turn> {
        let path = Path::new(file);
        let name = RoutineName::new(path.file_stem().unwrap().to_str().unwrap()).unwrap();
        claims.add(name, path.into(), file.into(), found.then_some(0), true)
    }

    #[test]
    fn a_file_that_goes_leaves_and_one_that_comes_back_has_its_name_again() {
        let mut claims = Claims::default();
        assert_eq!(add(&mut claims, "edge/a.js", true), [Turn::Came(0)]);
        assert!(claims.knows(0, Path::new("edge/a.js")));
        assert!(!claims.knows(1, Path::new("edge/a.js")));
        let gone = Turn::Left(0, "`edge/a.js` is gone".into());
        assert_eq!(claims.set_present(0, false), [gone]);
        assert_eq!(claims.set_present(0, false), []);
        assert_eq!(claims.set_present(0, true), [Turn::Came(0)]);
    }

    #[test]
    fn a_name_that_two_files_claim_is_nobodys_until_one_of_them_goes() {
        let mut claims = Claims::default();
        add(&mut claims, "edge/a.js", true);
        let turns = add(&mut claims, "other/a.js", true);
        let [Turn::Contested(what, _), Turn::Left(0, _)] = &turns[..] else {
            panic!("{turns:?}");
        };
        assert!(what.contains("`edge/a.js` and `other/a.js`"), "{what}");
        assert!(!claims.holds(0) && !claims.holds(1));
        // Had both come at once, nobody would hear of the first one.
        let both = [vec![Turn::Came(0)], turns].concat();
        assert!(matches!(net(both)[..], [Turn::Contested(..)]));
        assert_eq!(claims.set_present(0, false), [Turn::Came(1)]);
        assert_eq!(claims.set_present(0, true).len(), 2);
        assert_eq!(claims.set_present(1, false), [Turn::Came(0)]);
    }

    #[test]
    fn a_file_that_is_named_in_the_configuration_claims_its_name_even_when_it_is_missing() {
        let mut claims = Claims::default();
        assert_eq!(add(&mut claims, "a.js", false), [Turn::Came(0)]);
        assert_eq!(claims.set_present(0, false), []);
        assert_eq!(add(&mut claims, "edge/a.js", true).len(), 2);
        assert_eq!(claims.set_present(1, false), [Turn::Came(0)]);
    }
}
