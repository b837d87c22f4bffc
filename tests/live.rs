//! What is live is changed by hand only, with care before and a look after; what others change is seen and never undone.

use crate::common::{Bed, Ended, QUICK, code, name};
use er_dev::emulator::world::{Settings, World};
use er_dev::routine::Revision;
use serde_json::Value;

/// Publishes with short time-outs.
async fn publish(bed: &Bed, arguments: &[&str]) -> Ended {
    let arguments = [&["publish", "hello"], arguments, QUICK].concat();
    bed.run(&arguments).await
}

fn live(bed: &Bed, environment: &str) -> Option<Revision> {
    bed.emulator.with_world(|world: &mut World| {
        let routine = world.routine(&name("hello")).unwrap();
        routine.live(environment).cloned()
    })
}

fn publishes(bed: &Bed) -> usize {
    bed.asked("PublishRoutineCodeRevision")
}

#[tokio::test]
async fn publish_puts_the_named_version_live_and_says_what_was_so_before() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 4);
    bed.publish("hello", &versions[3], "production");
    let number = versions[1].as_str();
    // The shortest end that no other has.
    let mut ends = (0..number.len()).rev().map(|from| &number[from..]);
    let holders = |end: &str| {
        versions
            .iter()
            .filter(|it| it.as_str().ends_with(end))
            .count()
    };
    let end = ends.find(|end| holders(end) == 1).unwrap();
    let ended = publish(&bed, &[end, "--env", "production", "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let told = &ended.of("published")[0];
    assert_eq!(told["revision"], versions[1].as_str());
    assert_eq!(told["before"], versions[3].as_str());
    assert_eq!(live(&bed, "production"), Some(versions[1].clone()));
    // Doing it again asks nobody and changes nothing.
    let again = publish(&bed, &[number, "--env", "production"]).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(publishes(&bed), 1);
}

#[tokio::test]
async fn where_nobody_can_be_asked_only_staging_is_published_without_yes() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 2);
    for environment in ["production", "presetCanaryZhejiang"] {
        let ended = publish(&bed, &["--env", environment]).await;
        assert_eq!(ended.code, Some(2), "{environment}");
        assert!(ended.stderr.contains("--yes"), "{}", ended.stderr);
    }
    assert_eq!(publishes(&bed), 0);
    assert_eq!(publish(&bed, &["--env", "staging"]).await.code, Some(0));
    let ended = publish(&bed, &["--env", "presetCanaryZhejiang", "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(publishes(&bed), 2);
}

#[tokio::test]
async fn without_a_version_the_one_with_the_present_bytes_is_published_else_the_newest() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 2);
    assert_eq!(bed.push().await.code, Some(0));
    let ours = bed.versions("hello").pop().unwrap();
    bed.seed_now("hello");
    let newest = bed.versions("hello").pop().unwrap();
    assert_ne!(newest, ours);
    publish(&bed, &["--env", "staging"]).await;
    assert_eq!(live(&bed, "staging"), Some(ours));
    bed.write("hello", &code("hello", 1));
    publish(&bed, &["--env", "staging"]).await;
    assert_eq!(live(&bed, "staging"), Some(newest));
}

#[tokio::test]
async fn an_environment_or_a_version_that_is_none_is_refused_and_the_right_ones_are_named() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 3);
    let shared = "0";
    let cases: [(&[&str], u8, &str); 5] = [
        (&["--env", "Production", "--yes"], 2, "production"),
        (
            &["--env", "presetCanary", "--yes"],
            2,
            "presetCanaryZhejiang",
        ),
        (
            &["123456789", "--env", "staging"],
            2,
            "er-dev revisions hello",
        ),
        (
            &["latest", "--env", "staging"],
            2,
            "is not the number of a version",
        ),
        (&[shared, "--env", "staging"], 2, versions[0].as_str()),
    ];
    for (arguments, code, says) in cases {
        let ended = publish(&bed, arguments).await;
        assert_eq!(
            ended.code,
            Some(code.into()),
            "{arguments:?} {}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains(says),
            "{arguments:?} {}",
            ended.stderr
        );
    }
    assert_eq!(publishes(&bed), 0);
}

#[tokio::test]
async fn a_version_without_code_or_with_other_code_than_its_mark_says_is_not_published() {
    let bed = Bed::new(&["hello"]).await;
    assert_eq!(bed.push().await.code, Some(0));
    let ours = bed.versions("hello").pop().unwrap();
    for (answer, says) in [
        (
            "{\"RequestId\":\"R\",\"Content\":{\"ErCode\":\"\"}}",
            "has no code",
        ),
        (
            "{\"RequestId\":\"R\",\"Content\":{\"ErCode\":\"b3RoZXI=\"}}",
            "does not hold the code that it was made of",
        ),
    ] {
        bed.fault(&format!("DescribeRoutineCodeRevision:1:answer({answer})"));
        let ended = publish(&bed, &[ours.as_str(), "--env", "staging"]).await;
        assert_eq!(ended.code, Some(1), "{}", ended.stdout);
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
    assert_eq!(publishes(&bed), 0);
}

#[tokio::test]
async fn without_a_version_one_that_has_no_code_is_passed_over() {
    let bed = Bed::new(&["hello"]).await;
    assert_eq!(bed.push().await.code, Some(0));
    let good = bed.versions("hello").pop().unwrap();
    // Somebody's upload of the very same bytes never finished, and one more of other bytes.
    let described = bed.emulator.with_world(|world| {
        let routine = world.routine(&name("hello")).unwrap();
        routine.versions()[0].description().to_owned()
    });
    bed.emulator.with_world(|world: &mut World| {
        for words in [described.as_str(), "by hand"] {
            let now = jiff::Timestamp::now();
            world.seed(&name("hello"), None, words, now).unwrap();
        }
    });
    let ended = publish(&bed, &["--env", "staging"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(live(&bed, "staging"), Some(good.clone()));
    bed.write("hello", &code("hello", 1));
    let asked = publish(&bed, &["--env", "production"]).await;
    let says = format!("publish version {good}");
    assert!(asked.stderr.contains(&says), "{}", asked.stderr);
    assert!(
        asked.stderr.contains("the newest that holds its code"),
        "{}",
        asked.stderr
    );
}

#[tokio::test]
async fn a_publish_whose_answer_is_lost_is_looked_for_and_not_taken_for_failed() {
    crate::common::each(
        ["drop_after", "drop_before", "status(502)", "delay(3000)"],
        async |trouble| {
            let bed = Bed::new(&["hello"]).await;
            let versions = bed.seed("hello", 3);
            bed.fault(&format!("PublishRoutineCodeRevision:1:{trouble}"));
            let ended = publish(&bed, &[versions[0].as_str(), "--env", "staging"]).await;
            assert_eq!(ended.code, Some(0), "{trouble}: {}", ended.stderr);
            assert_eq!(
                live(&bed, "staging"),
                Some(versions[0].clone()),
                "{trouble}"
            );
            assert_eq!(ended.of("published").len(), 1, "{trouble}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_publish_that_a_listing_never_shows_is_no_success() {
    let bed = Bed::with(
        &["hello"],
        {
            let mut settings = Settings::default();
            settings.set("lag=5s").unwrap();
            settings
        },
        "",
    )
    .await;
    let versions = bed.seed("hello", 2);
    let ended = publish(&bed, &[versions[0].as_str(), "--env", "staging"]).await;
    assert_eq!(ended.code, Some(69), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.of("published").is_empty());
}

#[tokio::test]
async fn a_key_that_may_not_publish_is_told_so() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 2);
    bed.fault("PublishRoutineCodeRevision:*:code(Forbidden.RAM,not authorised,403)");
    let ended = publish(&bed, &["--env", "staging"]).await;
    assert_eq!(ended.code, Some(77));
    assert!(
        ended.stderr.contains("PublishRoutineCodeRevision"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn rollback_publishes_what_was_live_before_and_twice_is_there_and_back() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 3);
    let rollback = async || {
        bed.run(
            &[
                &["rollback", "hello", "--env", "production", "--yes"],
                QUICK,
            ]
            .concat(),
        )
        .await
    };
    let unseen = rollback().await;
    assert_eq!(unseen.code, Some(1));
    assert!(unseen.stderr.contains("has not seen"), "{}", unseen.stderr);
    for version in &versions[..2] {
        let ended = publish(&bed, &[version.as_str(), "--env", "production", "--yes"]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    for expected in [0, 1, 0] {
        let ended = rollback().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(live(&bed, "production"), Some(versions[expected].clone()));
    }
}

#[tokio::test]
async fn a_rollback_to_a_version_that_is_gone_says_how_it_comes_back() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 3);
    for version in &versions[..2] {
        publish(&bed, &[version.as_str(), "--env", "production", "--yes"]).await;
    }
    bed.emulator
        .with_world(|world| world.delete(&name("hello"), &versions[0]).unwrap());
    let arguments = [
        &["rollback", "hello", "--env", "production", "--yes"],
        QUICK,
    ]
    .concat();
    let ended = bed.run(&arguments).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("is not there any more"),
        "{}",
        ended.stderr
    );
    assert_eq!(publishes(&bed), 2);
}

#[tokio::test]
async fn publish_to_staging_follows_each_upload_and_never_another_persons_choice() {
    let bed = Bed::new(&["hello"]).await;
    let text = std::fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    let with = format!("{text}publish_to = [\"staging\"]\n");
    std::fs::write(bed.path("er-dev.toml"), &with).unwrap();
    let mut watch = bed.watch(QUICK).await;
    let first = watch.until("published").await;
    assert_eq!(first["environment"], "staging");
    for save in 1..=3 {
        bed.write("hello", &code("hello", save));
        let uploaded = watch.until("uploaded").await;
        let published = watch.until("published").await;
        assert_eq!(published["revision"], uploaded["revision"]);
    }
    let old = bed.versions("hello")[0].clone();
    bed.publish("hello", &old, "staging");
    // The same bytes again: nothing is uploaded, and what somebody chose stays.
    bed.write("hello", &code("hello", 3));
    assert_eq!(watch.end_of_edit().await["event"], "unchanged");
    assert_eq!(live(&bed, "staging"), Some(old.clone()));
    watch.stop().await;
    let mut watch = bed.watch(QUICK).await;
    assert_eq!(live(&bed, "staging"), Some(old));
    bed.write("hello", &code("hello", 4));
    watch.until("published").await;
    assert_eq!(live(&bed, "staging"), bed.versions("hello").pop());
    watch.stop().await;
}

#[tokio::test]
async fn an_upload_that_cannot_be_published_yet_is_published_later() {
    let bed = Bed::new(&["hello"]).await;
    let text = std::fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    let with = format!("{text}publish_to = [\"staging\"]\n");
    std::fs::write(bed.path("er-dev.toml"), &with).unwrap();
    let mut watch = bed.watch(QUICK).await;
    bed.fault("PublishRoutineCodeRevision:1-2:code(Throttling.User,slow down,400)");
    bed.write("hello", &code("hello", 1));
    watch.until("uploaded").await;
    let warning = watch.until("warning").await;
    let what = warning["problem"]["what"].as_str().unwrap();
    assert!(what.contains("not put live"), "{what}");
    watch.until("published").await;
    assert_eq!(live(&bed, "staging"), bed.versions("hello").pop());
    watch.stop().await;
}

#[tokio::test]
async fn what_another_person_puts_live_is_told_once_and_stays() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 3);
    let mut watch = bed.watch(QUICK).await;
    bed.publish("hello", &versions[0], "production");
    let republished = |watch: &crate::common::Watch| -> Vec<Value> {
        let seen = watch.seen();
        seen.filter(|event| event["event"] == "republished")
            .cloned()
            .collect()
    };
    for save in 1..=3 {
        bed.write("hello", &code("hello", save));
        watch.until("uploaded").await;
    }
    // An edit that fits no slot needs a fresh look.
    while republished(&watch).is_empty() {
        bed.write("hello", &code("hello", watch.seen().count() + 10));
        watch.until("uploaded").await;
    }
    let told = republished(&watch);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["revision"], versions[0].as_str());
    assert_eq!(live(&bed, "production"), Some(versions[0].clone()));
    watch.stop().await;
}

#[tokio::test]
async fn an_environment_that_points_at_nothing_is_an_error_with_the_way_out_until_it_is_mended() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 3);
    bed.publish("hello", &versions[0], "production");
    bed.world("guard=off");
    bed.emulator
        .with_world(|world| world.delete(&name("hello"), &versions[0]).unwrap());
    assert_eq!(bed.push().await.code, Some(0));
    bed.write("hello", &code("hello", 1));
    let pushed = bed.push().await;
    let told = &pushed.of("critical");
    assert_eq!(told.len(), 1, "{}", pushed.stdout);
    let (what, help) = (&told[0]["problem"]["what"], &told[0]["problem"]["help"]);
    assert!(
        what.as_str().unwrap().contains(versions[0].as_str()),
        "{what}"
    );
    assert!(
        help.as_str().unwrap().contains("er-dev publish hello"),
        "{help}"
    );
    let mut watch = bed.watch(QUICK).await;
    let ended = publish(&bed, &["--env", "production", "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    bed.write("hello", &code("hello", 2));
    watch.until("mended").await;
    watch.stop().await;
}

/// A bed whose uploads are published to staging.
async fn staging_bed() -> Bed {
    let bed = Bed::new(&["hello"]).await;
    let text = std::fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    let with = format!("{text}publish_to = [\"staging\"]\n");
    std::fs::write(bed.path("er-dev.toml"), with).unwrap();
    bed
}

#[tokio::test]
async fn an_unchanged_file_undoes_no_publish_of_somebody_else_even_when_theirs_is_newer() {
    let bed = staging_bed().await;
    assert_eq!(bed.push().await.code, Some(0));
    bed.seed_now("hello");
    let theirs = bed.versions("hello").pop().unwrap();
    bed.publish("hello", &theirs, "staging");
    let pushed = bed.push().await;
    assert_eq!(pushed.of("reused").len(), 1, "{}", pushed.stdout);
    let watch = bed.watch(QUICK).await;
    watch.stop().await;
    assert_eq!(live(&bed, "staging"), Some(theirs));
}

#[tokio::test]
async fn what_somebody_publishes_while_an_own_publish_waits_for_its_next_try_stays() {
    let bed = staging_bed().await;
    let mut watch = bed.watch(QUICK).await;
    watch.until("published").await;
    let first = bed.versions("hello")[0].clone();
    bed.write("hello", &code("hello", 1));
    watch.until("published").await;
    bed.fault("PublishRoutineCodeRevision:1:code(Throttling.User,slow down,400)");
    bed.write("hello", &code("hello", 2));
    watch.until("warning").await;
    bed.publish("hello", &first, "staging");
    watch.until("republished").await;
    bed.sync().await;
    assert_eq!(live(&bed, "staging"), Some(first));
    watch.stop().await;
}

#[tokio::test]
async fn a_push_that_could_not_publish_fails_and_the_next_one_makes_up_for_it() {
    let bed = staging_bed().await;
    bed.fault("PublishRoutineCodeRevision:1:code(Forbidden.RAM,not authorised,403)");
    let pushed = bed.push().await;
    assert_eq!(pushed.code, Some(77), "{}", pushed.stdout);
    assert_eq!(pushed.of("uploaded").len(), 1);
    let again = bed.push().await;
    assert_eq!(again.code, Some(0), "{}", again.stdout);
    assert_eq!(again.of("published").len(), 1);
    assert_eq!(live(&bed, "staging"), bed.versions("hello").pop());
}

#[tokio::test]
async fn the_way_out_of_an_environment_that_points_at_nothing_leads_to_the_very_code_that_was_live()
{
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    let prune = ["prune", "hello"];
    assert_eq!(bed.run(&[&prune[..], QUICK].concat()).await.code, Some(0));
    let (gone, lost) = (versions[0].clone(), b"// foreign 0");
    bed.emulator.with_world(|world: &mut World| {
        let seeded = world.seed(
            &name("hello"),
            Some(b"// live for a moment"),
            "by hand",
            jiff::Timestamp::now(),
        );
        world
            .publish(&name("hello"), &seeded.unwrap(), &["production"])
            .unwrap();
    });
    // Production points at what rotation deleted, as after a publish in the very moment of the deletion.
    bed.fault(&format!(
        "DescribeRoutine:*:answer({{\"RequestId\":\"R\",\"Content\":{{\"CodeRevs\":[{{\"CodeRevision\":\"{}\"}}],\"Envs\":[\"production\"],\"EnvConf\":{{\"production\":{{\"CodeRev\":\"{gone}\"}}}}}}}})",
        versions[9]
    ));
    let told = bed.push().await;
    let help = told.of("critical")[0]["problem"]["help"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        help.contains(&format!("`er-dev restore hello {gone}`")),
        "{help}"
    );
    bed.emulator.clear_faults();
    let restored = bed
        .run(&[&["restore", "hello", gone.as_str()], QUICK].concat())
        .await;
    assert_eq!(
        restored.code,
        Some(0),
        "{}{}",
        restored.stdout,
        restored.stderr
    );
    let revision = restored.of("recovered")[0]["revision"]
        .as_str()
        .unwrap()
        .to_owned();
    let published = publish(&bed, &[&revision, "--env", "production", "--yes"]).await;
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let production = live(&bed, "production").unwrap();
    let at = bed
        .versions("hello")
        .iter()
        .position(|it| *it == production)
        .unwrap();
    assert_eq!(bed.codes("hello")[at], lost);
}
