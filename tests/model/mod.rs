//! The protocol in all the small worlds there are: every order of lost, late and doubled requests, crashes, edits, a
//! second er-dev and people, as far as a budget for each goes.
//!
//! What decides is the product's own code; see `daemon` for what is told again around it, `service` for the remote, and
//! `world` for what may happen and what must hold. The second half takes one guard at a time away from around the
//! product and shows that the model notices, so that it can be believed where it finds nothing.

mod daemon;
mod service;
mod world;

use stateright::{Checker, HasDiscoveries, Model as _};

use er_dev::config::Rotate;
use world::{Fault, Guard, People, World, promise};

fn explore(world: World) -> impl Checker<World> {
    let checker = world.checker().finish_when(HasDiscoveries::AnyFailures);
    checker.spawn_bfs().join()
}

/// Nothing that can happen in this world breaks a promise.
#[track_caller]
fn all_is_well(world: World) {
    let checker = explore(world);
    if let Some((promise, path)) = checker.discoveries().into_iter().next() {
        let actions: Vec<String> = path
            .into_actions()
            .iter()
            .map(|action| format!("  {action:?}"))
            .collect();
        panic!("broken: {promise}\n{}", actions.join("\n"));
    }
}

/// In this world, in which something is missing, one of these promises is broken.
#[track_caller]
fn breaks(world: World, promises: &[&str]) {
    let checker = explore(world);
    let found: Vec<&str> = checker.discoveries().into_keys().collect();
    assert!(
        found.iter().any(|promise| promises.contains(promise)),
        "{found:?}"
    );
}

/// Under both answers to when an upload takes its slot, and in a routine that is nearly full as in one that is empty,
/// where nothing is rotated out before it can be seen.
#[track_caller]
fn all_is_well_in_every_case(world: &World) {
    for at_callback in [false, true] {
        for foreign in [0, world.foreign] {
            let mut case = world.clone();
            case.manners.at_callback = at_callback;
            case.foreign = foreign;
            all_is_well(case);
        }
    }
}

/// One more of something where a long run was asked for.
fn with_time(number: u8) -> u8 {
    let long = std::env::var_os("ER_DEV_LONG").is_some_and(|value| value == "1");
    number + u8::from(long)
}

#[test]
fn silence_and_a_crash_at_any_moment_lose_nothing_and_leave_nothing_twice() {
    let world = World {
        edits: 2,
        faults: (with_time(1), &[Fault::Silence, Fault::NotSent]),
        crashes: 1,
        ..World::new()
    };
    all_is_well_in_every_case(&world);
}

#[test]
fn answers_that_say_nothing_and_forms_that_end_lose_nothing() {
    let world = World {
        edits: 2,
        faults: (3, &[Fault::OddDone, Fault::OddLost, Fault::FormEnded]),
        ..World::new()
    };
    all_is_well_in_every_case(&world);
}

#[test]
fn two_processes_of_one_state_directory_are_as_good_as_one() {
    let world = World {
        hosts: vec![0, 0],
        edits: with_time(0),
        faults: (1, &[Fault::Silence, Fault::NotSent]),
        crashes: 1,
        ..World::new()
    };
    all_is_well_in_every_case(&world);
}

#[test]
fn what_lands_after_anybody_waits_for_it_is_one_version_too_many_until_the_next_pass() {
    let world = World {
        edits: with_time(1),
        faults: (2, &[Fault::Silence]),
        very_late: 1,
        ..World::new()
    };
    all_is_well_in_every_case(&world);
}

#[test]
fn a_service_that_is_late_to_show_what_it_did_makes_no_difference() {
    let mut world = World {
        edits: 1,
        faults: (2, &[Fault::Stale, Fault::OddDone, Fault::OddLost]),
        ..World::new()
    };
    world.manners.lag = 1;
    all_is_well_in_every_case(&world);
}

#[test]
fn the_cap_is_kept_also_where_the_service_does_not_keep_it() {
    let mut world = World {
        edits: with_time(1),
        faults: (with_time(1), &[Fault::Silence, Fault::OddDone]),
        crashes: 1,
        ..World::new()
    };
    world.manners.enforced = false;
    all_is_well_in_every_case(&world);
}

#[test]
fn d04_a_version_that_people_publish_at_any_moment_stays() {
    for environments in [1, 2] {
        all_is_well(World {
            environments,
            edits: 2,
            people: (with_time(1), &[People::Publish]),
            faults: (1, &[Fault::Silence]),
            ..World::new()
        });
    }
    all_is_well(World {
        edits: 1,
        people: (1, &[People::Publish]),
        dawdles: 1,
        foreign: 3,
        ..World::new()
    });
}

#[test]
fn what_people_upload_goes_by_age_or_with_own_not_at_all() {
    for rotate in [Rotate::Any, Rotate::Own] {
        all_is_well(World {
            rotate,
            edits: 2,
            people: (2, &[People::Upload]),
            faults: (1, &[Fault::Silence]),
            ..World::new()
        });
    }
}

#[test]
fn what_people_delete_is_not_taken_for_stored() {
    all_is_well(World {
        edits: 2,
        people: (2, &[People::Delete]),
        faults: (1, &[Fault::Silence]),
        ..World::new()
    });
}

#[test]
fn an_er_dev_of_another_host_costs_no_live_version_and_no_unsaved_one() {
    all_is_well(World {
        hosts: vec![0, 1],
        edits: with_time(0),
        faults: (1, &[Fault::Silence]),
        ..World::new()
    });
}

#[test]
fn listings_and_readings_without_an_answer_are_only_read_again() {
    all_is_well(World {
        edits: 1,
        faults: (2, &[Fault::Unread, Fault::Silence]),
        ..World::new()
    });
}

#[test]
fn a_version_that_cannot_be_saved_stays_and_the_next_oldest_goes_unless_none_can_be() {
    for environments in [0, 1] {
        for foreign in [1, 3] {
            all_is_well(World {
                environments,
                foreign,
                edits: 2,
                faults: (2, &[Fault::Unsaved, Fault::NoPlace, Fault::Silence]),
                ..World::new()
            });
        }
    }
}

#[test]
fn without_looking_at_the_next_oldest_one_that_cannot_be_saved_keeps_all_others() {
    breaks(
        World {
            environments: 0,
            edits: 2,
            faults: (1, &[Fault::Unsaved]),
            without: Some(Guard::NextOldest),
            ..World::new()
        },
        &[promise::ROOM],
    );
}

#[test]
fn on_staging_the_newest_code_is_the_last_word_whatever_gets_no_answer() {
    for at_callback in [false, true] {
        // All slots are taken by versions, or none is.
        for foreign in [0, 3] {
            let mut world = World {
                foreign,
                edits: 2,
                faults: (with_time(1), &[Fault::Silence, Fault::NotSent]),
                crashes: 1,
                very_late: 1,
                staging: true,
                ..World::new()
            };
            world.manners.at_callback = at_callback;
            all_is_well(world);
        }
    }
}

#[test]
fn on_staging_answers_that_say_nothing_and_forms_that_end_lose_nothing() {
    for at_callback in [false, true] {
        let mut world = World {
            edits: 2,
            faults: (3, &[Fault::OddDone, Fault::OddLost, Fault::FormEnded]),
            staging: true,
            ..World::new()
        };
        world.manners.at_callback = at_callback;
        all_is_well(world);
    }
}

#[test]
fn without_looking_again_older_code_that_comes_late_stays_on_staging() {
    breaks(
        World {
            edits: 1,
            faults: (1, &[Fault::Silence]),
            very_late: 1,
            staging: true,
            without: Some(Guard::StagingLook),
            ..World::new()
        },
        &[promise::STORED],
    );
}

#[test]
fn without_reading_back_the_mark_on_staging_is_taken_for_its_code() {
    breaks(
        World {
            edits: 1,
            crashes: 1,
            staging: true,
            without: Some(Guard::ReadBack),
            ..World::new()
        },
        &[promise::PROOF],
    );
}

#[test]
fn without_the_mark_a_crash_makes_a_second_version() {
    breaks(
        World {
            foreign: 0,
            crashes: 1,
            without: Some(Guard::Lookup),
            ..World::new()
        },
        &[promise::ONCE],
    );
}

#[test]
fn without_reading_back_a_version_without_code_is_taken_for_stored() {
    breaks(
        World {
            crashes: 1,
            without: Some(Guard::ReadBack),
            ..World::new()
        },
        &[promise::PROOF],
    );
}

#[test]
fn without_looking_at_the_environments_a_live_version_goes() {
    breaks(
        World {
            without: Some(Guard::LiveCheck),
            ..World::new()
        },
        &[promise::LIVE],
    );
}

#[test]
fn without_keeping_the_newest_a_version_that_is_just_being_published_goes() {
    let world = World {
        keep_newest: 0,
        edits: 1,
        people: (2, &[People::Publish, People::Upload]),
        ..World::new()
    };
    breaks(world, &[promise::NEWEST]);
}

#[test]
fn without_the_lock_two_processes_get_in_each_others_way() {
    breaks(
        World {
            hosts: vec![0, 0],
            without: Some(Guard::Lock),
            ..World::new()
        },
        &[promise::ONCE, promise::CAP, promise::SAVED],
    );
}

#[test]
fn without_settling_a_late_request_comes_as_a_surprise() {
    breaks(
        World {
            edits: 1,
            faults: (1, &[Fault::Silence]),
            crashes: 1,
            without: Some(Guard::Settle),
            ..World::new()
        },
        &[promise::ONCE, promise::ROOM, promise::SAVED],
    );
}

#[test]
fn without_the_vault_code_is_deleted_that_nobody_has() {
    breaks(
        World {
            without: Some(Guard::Save),
            ..World::new()
        },
        &[promise::SAVED],
    );
}

#[test]
fn without_a_fresh_look_a_version_goes_that_was_published_in_time_to_see() {
    breaks(
        World {
            edits: 1,
            people: (1, &[People::Publish]),
            dawdles: 1,
            without: Some(Guard::FreshLook),
            ..World::new()
        },
        &[promise::LIVE],
    );
}
