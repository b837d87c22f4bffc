//! What changes of the world are possible, and that no order of them breaks its bounds.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

fn noon() -> Timestamp {
    "2026-02-03T12:00:00Z".parse().unwrap()
}

fn hello() -> RoutineName {
    RoutineName::new("hello").unwrap()
}

fn world(slot: Slot) -> World {
    let settings = Settings {
        slot,
        ..Settings::default()
    };
    let mut world = World::new(settings, "http://127.0.0.1:1");
    world.create_routine(&hello(), "", noon()).unwrap();
    world
}

fn seed(world: &mut World, code: &str) -> Revision {
    world
        .seed(&hello(), Some(code.as_bytes()), "seeded", noon())
        .unwrap()
}

fn post(world: &mut World, revision: &Revision, code: &str) -> Result<(), Refusal> {
    world.register(
        &hello(),
        revision,
        &world.store_text("posted"),
        Code::new(code.into()),
    )
}

fn count(world: &World) -> usize {
    world.routine(&hello()).unwrap().versions().len()
}

fn said(outcome: Result<impl Sized, Refusal>) -> String {
    outcome.map_or_else(|refusal| refusal.to_string(), |_| "ok".into())
}

#[test]
fn the_eleventh_upload_gets_no_form_when_the_form_takes_the_slot() {
    let mut world = world(Slot::AtUpload);
    for _ in 0..10 {
        world.begin_upload(&hello(), "d", noon()).unwrap();
    }
    assert_eq!(count(&world), 10, "an upload without code counts");
    let refused = said(world.begin_upload(&hello(), "d", noon()));
    assert!(
        refused.contains("you got upper limit of code revisions"),
        "{refused}"
    );
}

#[test]
fn the_eleventh_upload_fails_at_its_callback_when_the_callback_takes_the_slot() {
    let mut world = world(Slot::AtCallback);
    let given: Vec<Revision> = (0..11)
        .map(|_| world.begin_upload(&hello(), "d", noon()).unwrap())
        .collect();
    assert_eq!(count(&world), 0, "a form that is not posted leaves nothing");
    for revision in &given[..10] {
        post(&mut world, revision, "x").unwrap();
    }
    let refused = said(post(&mut world, &given[10], "x"));
    assert!(
        refused.contains("you got upper limit of code revisions"),
        "{refused}"
    );
    assert_eq!(
        said(post(&mut world, &given[0], "again")),
        "ok",
        "no second place is needed"
    );
    assert_eq!(count(&world), 10);
}

#[test]
fn numbers_rise_even_when_the_clock_stands_or_steps_back() {
    let mut world = world(Slot::AtUpload);
    let first = world.begin_upload(&hello(), "d", noon()).unwrap();
    let second = world.begin_upload(&hello(), "d", noon()).unwrap();
    let third = world
        .begin_upload(&hello(), "d", noon() - SignedDuration::from_hours(1))
        .unwrap();
    assert_eq!(first.as_str(), "1770120000000000000");
    assert_eq!(second.as_str(), "1770120000000000001");
    assert_eq!(third.as_str(), "1770120000000000002");
}

#[test]
fn versions_seeded_for_one_moment_keep_apart_and_old_ones_sort_first() {
    let mut world = world(Slot::AtUpload);
    let fresh = world.begin_upload(&hello(), "d", noon()).unwrap();
    let old = noon() - SignedDuration::from_hours(48);
    let a = world.seed(&hello(), None, "a", old).unwrap();
    let b = world.seed(&hello(), Some(b"b"), "b", old).unwrap();
    let routine = world.routine(&hello()).unwrap();
    let order: Vec<&Revision> = routine.versions().iter().map(|v| &v.revision).collect();
    assert_eq!(order, [&a, &b, &fresh]);
    assert_eq!(routine.version(&a).unwrap().created(), Some(old));
    assert_eq!(routine.version(&b).unwrap().bytes(), Some(&b"b"[..]));
}

#[test]
fn a_live_version_is_deleted_only_without_the_guard() {
    for guard in [true, false] {
        let mut world = world(Slot::AtUpload);
        world.settings.guard = guard;
        let live = seed(&mut world, "live");
        let idle = seed(&mut world, "idle");
        world
            .publish(&hello(), &live, &["presetCanaryZhejiang"])
            .unwrap();
        assert_eq!(said(world.delete(&hello(), &idle)), "ok");
        assert_eq!(world.delete(&hello(), &live).is_err(), guard);
        assert_eq!(count(&world), usize::from(guard));
        let routine = world.routine(&hello()).unwrap();
        assert_eq!(
            routine.live("presetCanaryZhejiang"),
            Some(&live),
            "the environment goes on naming it"
        );
        assert!(world.delete(&hello(), &idle).is_err(), "it is gone");
    }
}

#[test]
fn a_publish_changes_all_its_environments_or_none() {
    let mut world = world(Slot::AtUpload);
    let old = seed(&mut world, "old");
    let new = seed(&mut world, "new");
    let orphan = world.seed(&hello(), None, "orphan", noon()).unwrap();
    world
        .publish(&hello(), &old, &["production", "staging"])
        .unwrap();
    let odd_case = ["staging", "Production"];
    assert!(
        said(world.publish(&hello(), &new, &odd_case)).contains("no such environment: Production")
    );
    assert!(said(world.publish(&hello(), &orphan, &["staging"])).contains("has no code"));
    assert!(
        said(world.publish(&hello(), &Revision::new("7"), &["staging"]))
            .contains("no such code revision")
    );
    assert_eq!(
        world.routine(&hello()).unwrap().live_in(&old),
        ["production", "staging"]
    );
    world.publish(&hello(), &new, &["staging"]).unwrap();
    assert_eq!(
        world.routine(&hello()).unwrap().live_in(&old),
        ["production"]
    );
}

#[test]
fn a_form_posted_after_its_version_was_deleted_makes_one_only_at_the_callback() {
    for (slot, versions) in [(Slot::AtUpload, 0), (Slot::AtCallback, 1)] {
        let mut world = world(slot);
        let revision = world.begin_upload(&hello(), "d", noon()).unwrap();
        post(&mut world, &revision, "first").unwrap();
        world.delete(&hello(), &revision).unwrap();
        let again = post(&mut world, &revision, "late");
        assert_eq!(again.is_ok(), versions == 1, "{slot:?}");
        assert_eq!(count(&world), versions, "{slot:?}");
    }
}

#[test]
fn a_missing_routine_is_told_in_every_answer() {
    let mut world = World::new(Settings::default(), "http://127.0.0.1:1");
    let (name, revision) = (hello(), Revision::new("1"));
    for outcome in [
        said(world.begin_upload(&name, "d", noon())),
        said(world.seed(&name, None, "d", noon())),
        said(world.publish(&name, &revision, &["staging"])),
        said(world.delete(&name, &revision)),
        said(post(&mut world, &revision, "x")),
    ] {
        assert!(
            outcome.contains("routine hello does not exist"),
            "{outcome}"
        );
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Begin,
    Post(usize),
    Seed,
    Delete(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => Just(Deed::Begin),
        4 => (0_usize..30).prop_map(Deed::Post),
        1 => Just(Deed::Seed),
        2 => (0_usize..30).prop_map(Deed::Delete),
    ]
}

proptest! {
    #[test]
    fn no_order_of_deeds_gives_an_eleventh_version_or_a_number_twice(
        deeds in prop::collection::vec(deed(), 0..60),
        at_upload in any::<bool>(),
    ) {
        let mut world = world(if at_upload { Slot::AtUpload } else { Slot::AtCallback });
        let mut given: Vec<Revision> = Vec::new();
        for deed in deeds {
            match deed {
                Deed::Begin => given.extend(world.begin_upload(&hello(), "d", noon())),
                Deed::Seed => given.extend(world.seed(&hello(), None, "d", noon())),
                Deed::Post(i) => {
                    if let Some(revision) = given.get(i) {
                        let _ = post(&mut world, revision, "x");
                    }
                }
                Deed::Delete(i) => {
                    if let Some(revision) = given.get(i) {
                        let _ = world.delete(&hello(), revision);
                    }
                }
            }
            let versions = world.routine(&hello()).unwrap().versions();
            prop_assert!(versions.len() <= 10);
        }
        let distinct: BTreeSet<&Revision> = given.iter().collect();
        prop_assert_eq!(distinct.len(), given.len());
    }
}
