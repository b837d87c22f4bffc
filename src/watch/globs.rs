//! The files that fit the patterns of a configuration at one moment.

use std::collections::BTreeMap;
use std::path::Path;

use super::claims::{contest, unnamed};
use super::select::PatternError;
use super::tree::Tree;
use crate::config::{Config, Routine};
use crate::routine::RoutineName;

/// Looks which files fit patterns, and makes them routines of the configuration, as far as they can be. Routines of which
/// two have one name are taken out, those that the configuration names among them. A file that it names is that routine
/// and no other, whatever it fits.
pub fn expand(config: &mut Config) -> Result<(), PatternError> {
    if config.globs.is_empty() {
        return Ok(());
    }
    let mut all = std::mem::take(&mut config.routines);
    for glob in &config.globs {
        let mut tree = Tree::of_entries(glob, &config.watch.ignore, Path::new(""))?;
        let named = |file: &Path| all.iter().any(|it| it.glob.is_none() && it.entry == file);
        let files: Vec<_> = tree.files().into_iter().filter(|it| !named(it)).collect();
        for file in files {
            match glob.routine(&file) {
                Ok(routine) => all.push(routine),
                Err(error) => {
                    let shown = file.strip_prefix(glob.dir()).unwrap_or(&file);
                    let refused = unnamed(&shown.to_string_lossy(), &error);
                    config.refused.push(refused);
                }
            }
        }
    }
    let mut claims = BTreeMap::<RoutineName, Vec<&str>>::new();
    for Routine { name, shown, .. } in &all {
        claims.entry(name.clone()).or_default().push(shown);
    }
    let contested = claims.iter().filter(|(_, files)| files.len() > 1);
    config
        .refused
        .extend(contested.map(|(name, files)| contest(name, files)));
    let alone = |routine: &Routine| claims.get(&routine.name).is_some_and(|it| it.len() == 1);
    let (routines, contested) = all.iter().cloned().partition(alone);
    config.routines = routines;
    config.contested = contested;
    Ok(())
}
