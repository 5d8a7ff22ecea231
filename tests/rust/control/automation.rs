//! What happens by itself, on a clock that the test moves.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Daytona, until};

const MINUTE: Duration = Duration::from_secs(60);

/// Lets the automation run and asserts that it has left a sandbox as it is.
async fn stays(daytona: &Daytona, id: &str, state: &str) {
    for _ in 0..20 {
        tokio::task::yield_now().await;
        assert_eq!(daytona.get(&format!("/api/sandbox/{id}")).await.expect(200)["state"], state);
    }
}

#[tokio::test]
async fn an_idle_sandbox_stops_then_is_archived() {
    let (daytona, clock) = Daytona::with_clock().await;
    let id = daytona.create(json!({"autoStopInterval": 15, "autoArchiveInterval": 60})).await;
    clock.advance(14 * MINUTE);
    stays(&daytona, &id, "started").await;
    clock.advance(MINUTE);
    daytona.wait_for(&id, "stopped").await;
    clock.advance(60 * MINUTE);
    daytona.wait_for(&id, "archived").await;
}

#[tokio::test]
async fn requests_to_the_toolbox_keep_a_sandbox_alive_and_reads_do_not() {
    let (daytona, clock) = Daytona::with_clock().await;
    let id = daytona.create(json!({"autoStopInterval": 15})).await;
    clock.advance(10 * MINUTE);
    daytona.get(&format!("/toolbox/{id}/headers")).await.expect(200);
    clock.advance(10 * MINUTE);
    stays(&daytona, &id, "started").await;
    daytona.post(&format!("/api/sandbox/{id}/last-activity"), Value::Null).await;
    clock.advance(10 * MINUTE);
    stays(&daytona, &id, "started").await;
    let mut quiet = daytona.request(http::Method::GET, &format!("/toolbox/{id}/headers"), &Value::Null);
    quiet.headers_mut().insert("x-daytona-skip-last-activity-update", "true".parse().unwrap());
    daytona.try_call(quiet).await.unwrap().expect(200);
    clock.advance(5 * MINUTE);
    daytona.wait_for(&id, "stopped").await;
}

#[tokio::test]
async fn a_request_under_way_keeps_a_sandbox_alive() {
    let (daytona, clock) = Daytona::with_clock().await;
    let id = daytona.create(json!({"autoStopInterval": 15})).await;
    let request = daytona.request(http::Method::GET, &format!("/toolbox/{id}/wait"), &Value::Null);
    let waiting = daytona.send(request);
    let others = async {
        // the request has arrived when it counts
        until("arrival", || async {
            let counts = daytona.get("/api/admin/requests").await.expect(200);
            (counts["GET /toolbox/{sandbox}/wait"] == 1).then_some(())
        })
        .await;
        stays(&daytona, &id, "started").await;
        clock.advance(20 * MINUTE);
        stays(&daytona, &id, "started").await;
    };
    tokio::select! {
        answer = waiting => panic!("an answer: {answer:?}"),
        () = others => {}
    }
    // the client has gone away, which ends the activity
    until("stopped", || async {
        clock.advance(15 * MINUTE);
        tokio::task::yield_now().await;
        (daytona.get(&format!("/api/sandbox/{id}")).await.json()["state"] == "stopped").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_interval_of_zero_never_stops() {
    let (daytona, clock) = Daytona::with_clock().await;
    let id = daytona.create(json!({"autoStopInterval": 0})).await;
    clock.advance(100_000 * MINUTE);
    stays(&daytona, &id, "started").await;
    daytona.post(&format!("/api/sandbox/{id}/autostop/5"), Value::Null).await.expect(200);
    daytona.wait_for(&id, "stopped").await;
}

#[tokio::test]
async fn a_stopped_sandbox_is_deleted_after_its_interval() {
    let (daytona, clock) = Daytona::with_clock().await;
    let id = daytona.create(json!({"autoDeleteInterval": 30})).await;
    daytona.post(&format!("/api/sandbox/{id}/stop"), Value::Null).await.expect(200);
    daytona.wait_for(&id, "stopped").await;
    clock.advance(29 * MINUTE);
    stays(&daytona, &id, "stopped").await;
    clock.advance(MINUTE);
    daytona.wait_for(&id, "gone").await;
}

#[tokio::test]
async fn an_idle_ephemeral_sandbox_is_deleted_and_so_is_one_that_dies() {
    let (daytona, clock) = Daytona::with_clock().await;
    let idle = daytona.create(json!({"autoDeleteInterval": 0})).await;
    clock.advance(15 * MINUTE);
    daytona.wait_for(&idle, "gone").await;
    let dead = daytona.create(json!({"autoDeleteInterval": 0})).await;
    daytona.post(&format!("/api/admin/sandboxes/{dead}/kill"), Value::Null).await.expect(204);
    daytona.wait_for(&dead, "gone").await;
}

#[tokio::test]
async fn the_time_to_live_destroys_an_active_sandbox_unless_it_is_extended() {
    let (daytona, clock) = Daytona::with_clock().await;
    let id = daytona.create(json!({"ttlMinutes": 10, "autoStopInterval": 0})).await;
    clock.advance(9 * MINUTE);
    daytona.post(&format!("/api/sandbox/{id}/ttl/10"), Value::Null).await.expect(200);
    clock.advance(9 * MINUTE);
    daytona.get(&format!("/toolbox/{id}/headers")).await.expect(200);
    stays(&daytona, &id, "started").await;
    clock.advance(MINUTE);
    daytona.wait_for(&id, "gone").await;
}
