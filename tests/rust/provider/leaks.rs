//! Nothing is left and nothing is lost, at whatever moment something fails or is given up.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use inspect_daytona::api::sandbox::CreateSandbox;
use inspect_daytona::local::control::LocalOptions;
use inspect_daytona::provider::{Deletions, Images, Run, names};
use inspect_daytona::{ErrorKind, local};
use serde_json::json;

use crate::fixture::{Fixture, LIMIT, name, output, settings_of, until};

#[tokio::test]
async fn a_create_whose_answer_is_lost_makes_one_sandbox_and_finds_it() {
    let fixture = Fixture::new().await;
    fixture.fault("POST", "/api/sandbox", 1, json!({"kind": "reset_after"})).await;
    let sandbox = fixture.sandbox().await;
    assert_eq!(fixture.server.statistics().created, 1);
    assert_eq!(sandbox.exec(crate::fixture::command(&["true"])).await.unwrap().returncode, 0);
    fixture.finish().await;
}

#[tokio::test]
async fn throttled_and_failing_creates_are_tried_again() {
    let fixture = Fixture::new().await;
    let throttle = json!({"kind": "throttle", "throttler": "sandbox-create", "seconds": 1});
    fixture.fault("POST", "/api/sandbox", 1, throttle).await;
    fixture.fault("POST", "/api/sandbox", 1, json!({"kind": "status", "status": 503})).await;
    fixture.sandbox().await;
    assert_eq!(fixture.server.statistics().created, 1);
    fixture.finish().await;
}

#[tokio::test]
async fn a_creation_that_nobody_waits_for_is_deleted() {
    let fixture = Fixture::new().await;
    for delay in [0, 2, 5, 10, 20, 40, 80] {
        let creation = fixture.run.create(name(), settings_of(json!({})));
        let _given_up = tokio::time::timeout(Duration::from_millis(delay), creation).await;
    }
    // those that were in time are on the account; the others delete themselves
    let left = fixture.run.finish(true).await;
    assert_eq!(left, []);
    until("all sandboxes are gone", || async { fixture.server.statistics().left == 0 }).await;
    let counts = fixture.run.counts();
    assert_eq!(counts.created, counts.deleted);
    fixture.finish().await;
}

#[tokio::test]
async fn an_abandoned_sandbox_is_deleted_whatever_it_is_doing() {
    let fixture = Fixture::new().await;
    let (first, second) = (name(), name());
    fixture.run.create(first.clone(), settings_of(json!({}))).await.unwrap();
    fixture.run.abandon(&first);
    let creation = {
        let (run, name) = (fixture.run.clone(), second.clone());
        tokio::spawn(async move { run.create(name, settings_of(json!({}))).await })
    };
    until("the creation has begun", || async { fixture.server.statistics().created == 2 }).await;
    fixture.run.abandon(&second);
    creation.await.unwrap().map(drop).unwrap_or_default();
    until("both are gone", || async { fixture.server.statistics().left == 0 }).await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_creation_that_a_proxy_delivers_twice_is_one_sandbox() {
    let fixture = Fixture::new().await;
    for overlap in [false, true] {
        fixture.fault("POST", "/api/sandbox", 1, json!({"kind": "replay", "overlap": overlap})).await;
        let sandbox = fixture.sandbox_with(json!({})).await.unwrap();
        assert_eq!(output(&sandbox, "echo here").await, "here\n", "overlap: {overlap}");
    }
    assert_eq!((fixture.run.counts().created, fixture.server.statistics().created), (2, 2));
    fixture.finish().await;
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_prepared_is_deleted() {
    let fixture = Fixture::new().await;
    let broken = json!({"kind": "status", "status": 400, "body": ""});
    fixture.fault("POST", "/toolbox/*/files/bulk-upload", 100, broken).await;
    let error = fixture.sandbox_with(json!({})).await.unwrap_err();
    assert!(error.to_string().contains("inspect-test-"), "names the sandbox: {error}");
    assert_eq!(fixture.server.statistics().left, 0);
    fixture.finish().await;
}

#[tokio::test]
async fn a_failed_delete_is_tried_again_at_the_end_and_reported_if_it_fails_again() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    fixture.fault("DELETE", "/api/sandbox/*", 1000, json!({"kind": "status", "status": 500})).await;
    assert!(sandbox.delete().await.is_err());
    let left = fixture.run.finish(true).await;
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].name.as_str(), left[0].id.as_deref()), (sandbox.name(), Some(sandbox.id())));
    assert!(left[0].reason.contains("500"), "{}", left[0].reason);
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn a_key_that_may_not_delete_stops_the_sandbox_and_says_so() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let denied =
        json!({"kind": "status", "status": 403, "body": r#"{"statusCode":403,"message":"Access denied"}"#});
    fixture.fault("DELETE", "/api/sandbox/*", 1, denied).await;
    let error = sandbox.delete().await.unwrap_err();
    assert!(error.to_string().contains("delete:sandboxes"), "{error}");
    until("it is stopped", || async {
        fixture.client.sandboxes().get(sandbox.id()).await.unwrap().state.as_str() == "stopped"
    })
    .await;
    fixture.finish().await;
}

#[tokio::test]
async fn the_end_of_a_run_deletes_sandboxes_that_carry_its_label_but_are_on_no_account() {
    let fixture = Fixture::new().await;
    fixture.sandbox().await;
    let request = CreateSandbox {
        name: Some("stray".to_owned()),
        labels: names::labels(fixture.run.id(), &BTreeMap::new()),
        ..CreateSandbox::default()
    };
    fixture.client.sandboxes().create(&request).await.unwrap();
    let stranger = CreateSandbox { name: Some("stranger".to_owned()), ..CreateSandbox::default() };
    let stranger = fixture.client.sandboxes().create(&stranger).await.unwrap();
    assert_eq!(fixture.run.finish(true).await, []);
    assert_eq!(fixture.server.statistics().left, 1, "others are left alone");
    fixture.client.sandboxes().delete(&stranger.id, LIMIT).await.unwrap();
    fixture.finish().await;
}

fn with_quota(cpu: u32) -> LocalOptions {
    let quota = local::control::Quota { total_cpu: Some(cpu), ..local::control::Quota::default() };
    LocalOptions { quota, ..LocalOptions::default() }
}

#[tokio::test]
async fn a_used_up_quota_waits_for_the_runs_own_sandboxes_to_end() {
    let fixture = Fixture::with(with_quota(1)).await;
    let first = fixture.sandbox().await;
    let second = {
        let run = fixture.run.clone();
        tokio::spawn(async move { run.create(name(), settings_of(json!({}))).await })
    };
    until("the second was refused", || async { fixture.requests().await["POST /api/sandbox"] >= 2 }).await;
    assert!(!second.is_finished());
    first.delete().await.unwrap();
    tokio::time::timeout(LIMIT, second).await.expect("it goes on").unwrap().unwrap();
    fixture.finish().await;
}

#[tokio::test]
async fn creations_that_begin_together_wait_for_each_other_where_the_quota_is_too_small_for_all() {
    let fixture = Fixture::with(with_quota(1)).await;
    let creations = (0..4).map(|_| async {
        let sandbox = fixture.run.create(name(), settings_of(json!({}))).await.unwrap();
        sandbox.delete().await.unwrap();
    });
    tokio::time::timeout(LIMIT, join_all(creations)).await.expect("each has its turn");
    assert_eq!(fixture.run.counts().deleted, 4);
    fixture.finish().await;
}

#[tokio::test]
async fn creations_that_begin_together_fail_at_once_where_others_use_up_the_quota() {
    let fixture = Fixture::with(with_quota(1)).await;
    let other = CreateSandbox { name: Some("other".to_owned()), ..CreateSandbox::default() };
    let other = fixture.client.sandboxes().create(&other).await.unwrap();
    let creations = (0..4).map(|_| fixture.run.create(name(), settings_of(json!({}))));
    let refused = tokio::time::timeout(LIMIT, join_all(creations)).await.expect("none waits for another");
    assert!(
        refused.iter().all(|made| made.as_ref().is_err_and(|why| why.kind() == ErrorKind::QuotaExceeded))
    );
    fixture.client.sandboxes().delete(&other.id, LIMIT).await.unwrap();
    fixture.finish().await;
}

#[tokio::test]
async fn a_quota_that_others_use_up_fails_at_once_and_says_what_to_do() {
    let fixture = Fixture::with(with_quota(1)).await;
    let other = CreateSandbox { name: Some("other".to_owned()), ..CreateSandbox::default() };
    let other = fixture.client.sandboxes().create(&other).await.unwrap();
    let error = fixture.sandbox_with(json!({})).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
    assert!(error.to_string().contains("--max-sandboxes"), "{error}");
    fixture.client.sandboxes().delete(&other.id, LIMIT).await.unwrap();
    fixture.finish().await;
}

#[tokio::test]
async fn a_run_waits_for_the_quota_that_the_one_before_it_gave_back_just_now() {
    let fixture = Fixture::new().await;
    let deletions = Deletions::default();
    let run = || Run::after_others(fixture.client.clone(), Images::default(), deletions.clone());
    let refuse = || {
        let body = json!({"statusCode": 400, "message": "Total CPU limit exceeded. Maximum allowed: 4."});
        let fault = json!({"kind": "status", "status": 400, "body": body.to_string()});
        fixture.fault("POST", "/api/sandbox", 1, fault)
    };
    let first = run();
    first.create(name(), settings_of(json!({}))).await.unwrap().delete().await.unwrap();
    refuse().await;
    let second = run();
    second.create(name(), settings_of(json!({}))).await.unwrap().delete().await.unwrap();
    // nobody told this one
    refuse().await;
    let error = fixture.sandbox_with(json!({})).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
    for run in [first, second] {
        assert_eq!(run.finish(true).await, []);
    }
    fixture.finish().await;
}

#[tokio::test]
async fn a_stranger_with_the_same_name_is_left_alone() {
    let fixture = Fixture::new().await;
    let taken = name();
    let stranger = CreateSandbox { name: Some(taken.clone()), ..CreateSandbox::default() };
    let stranger = fixture.client.sandboxes().create(&stranger).await.unwrap();
    fixture.fault("POST", "/api/sandbox", 1, json!({"kind": "status", "status": 503})).await;
    let error = fixture.run.create(taken, settings_of(json!({}))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    let found = fixture.client.sandboxes().get(&stranger.id).await.unwrap();
    assert_eq!(found.state.as_str(), "started");
    fixture.client.sandboxes().delete(&stranger.id, LIMIT).await.unwrap();
    fixture.finish().await;
}

#[tokio::test]
async fn the_end_of_a_run_waits_for_no_slow_creation_to_delete_what_lives_and_then_deletes_that_too() {
    let fixture = Fixture::new().await;
    fixture.sandbox().await;
    fixture.delay("POST", "/api/sandbox", 2000).await;
    let slow = {
        let run = fixture.run.clone();
        tokio::spawn(async move { run.create(name(), settings_of(json!({}))).await })
    };
    until("the creation is under way", || async { fixture.requests().await["POST /api/sandbox"] >= 2 }).await;
    let end = {
        let run = fixture.run.clone();
        tokio::spawn(async move { run.finish(true).await })
    };
    until("what lives is deleted", || async { fixture.run.counts().deleted == 1 }).await;
    assert_eq!(fixture.server.statistics().created, 1, "the slow one has not arrived yet");
    assert_eq!(end.await.unwrap(), []);
    assert!(slow.await.unwrap().is_err());
    assert_eq!((fixture.server.statistics().created, fixture.server.statistics().left), (2, 0));
    fixture.finish().await;
}

#[tokio::test]
async fn a_creation_that_waits_for_quota_ends_with_its_run() {
    let fixture = Fixture::with(with_quota(1)).await;
    fixture.sandbox().await;
    let waiting = {
        let run = fixture.run.clone();
        tokio::spawn(async move { run.create(name(), settings_of(json!({}))).await })
    };
    until("it was refused", || async { fixture.requests().await["POST /api/sandbox"] >= 2 }).await;
    assert_eq!(fixture.run.finish(true).await, []);
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::QuotaExceeded);
    assert_eq!(fixture.server.statistics().left, 0);
    fixture.finish().await;
}
