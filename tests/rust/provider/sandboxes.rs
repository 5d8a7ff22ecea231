//! What a task asks of its sandboxes is what it gets.

use inspect_daytona::ErrorKind;
use serde_json::json;

use crate::fixture::{Fixture, command, output, shell};

#[tokio::test]
async fn names_and_labels_are_on_the_platform() {
    let fixture = Fixture::new().await;
    let settings = json!({"labels": {"team": "x", "created_by": "somebody"}});
    let sandbox = fixture.sandbox_with(settings).await.unwrap();
    let record = fixture.client.sandboxes().get(sandbox.id()).await.unwrap();
    assert_eq!(record.name, sandbox.name());
    assert_eq!(record.labels["created_by"], "inspect-ai");
    assert_eq!(record.labels["inspect_run_id"], fixture.run.id());
    assert_eq!(record.labels["team"], "x");
    assert_eq!(record.auto_stop_interval, Some(0));
    fixture.finish().await;
}

#[tokio::test]
async fn a_sandbox_ends_by_itself_if_this_process_does_and_is_kept_a_day_for_a_person() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let end = |text: Option<String>| humantime::parse_rfc3339_weak(&text.unwrap()).unwrap();
    let minutes = |record: inspect_daytona::api::sandbox::Sandbox| {
        end(record.auto_destroy_at).duration_since(end(record.created_at)).unwrap().as_secs() / 60
    };
    let record = fixture.client.sandboxes().get(sandbox.id()).await.unwrap();
    assert!((59..=61).contains(&minutes(record)));
    let kept = fixture.run.finish(false).await;
    assert_eq!((kept.len(), kept[0].reason.as_str()), (1, ""));
    let record = fixture.client.sandboxes().get(sandbox.id()).await.unwrap();
    assert!((1439..=1442).contains(&minutes(record)));
    fixture.finish().await;
}

#[tokio::test]
async fn environment_and_user_reach_commands() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox_with(json!({"env_vars": {"GREETING": "hello you"}})).await.unwrap();
    assert_eq!(output(&sandbox, "printf %s \"$GREETING\"").await, "hello you");
    assert_eq!(output(&sandbox, "whoami; echo $HOME; pwd").await, "daytona\n/home/daytona\n/home/daytona\n");
    let mut as_root = shell("whoami; echo $HOME; echo $GREETING");
    as_root.user = Some("root".to_owned());
    assert_eq!(sandbox.exec(as_root).await.unwrap().stdout, "root\n/root\nhello you\n");
    fixture.finish().await;
}

#[tokio::test]
async fn an_unknown_snapshot_is_refused_by_name_before_anything_is_created() {
    let fixture = Fixture::new().await;
    let settings = crate::fixture::settings_of(json!({"snapshot": "no-such-snapshot"}));
    let error = settings.check(&fixture.client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("no-such-snapshot"), "{error}");
    assert_eq!(fixture.server.statistics().created, 0);
    fixture.finish().await;
}

#[tokio::test]
async fn an_unknown_user_is_a_failed_result_that_names_it() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let mut command = command(&["true"]);
    command.user = Some("nobody-here".to_owned());
    let outcome = sandbox.exec(command).await.unwrap();
    assert_ne!(outcome.returncode, 0);
    assert!(outcome.stderr.contains("nobody-here"), "{}", outcome.stderr);
    fixture.finish().await;
}
