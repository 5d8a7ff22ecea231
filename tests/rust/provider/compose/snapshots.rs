//! What the machines of services start from.

use inspect_daytona::api::snapshot::CreateSnapshot;
use inspect_daytona::provider::{Run, Sandbox};

use super::project::{IDLE, Project, daytona, possible};
use crate::fixture::{Fixture, name, output};

const PAIR: &str = "services:\n  default: {build: image, command: sleep infinity, cpus: 2, mem_limit: 2g}\n  \
                    web: {build: image, command: sleep infinity}\n";
/// Both cores and both GiB, and one of each for the Engine.
const USUAL: &str = "inspect-dind-3cpu-3gb-0gpu";

/// The snapshot that the machine of a service was started from.
async fn started_from(fixture: &Fixture, service: &Sandbox) -> Option<String> {
    fixture.client.sandboxes().find(service.id()).await.unwrap().unwrap().snapshot
}

/// A run knows nothing of another one, as if it were another process.
#[tokio::test(flavor = "multi_thread")]
async fn samples_and_processes_that_begin_together_make_one_snapshot_of_the_usual_name() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(PAIR);
    let other = Run::new(fixture.client.clone());
    fixture.forget_requests().await;
    let (first, second, third) = tokio::join!(
        project.create(&fixture),
        project.create(&fixture),
        other.create_services(name(), project.settings())
    );
    for services in [first.unwrap(), second.unwrap(), third.unwrap()] {
        assert_eq!(started_from(&fixture, &services[0].1).await.as_deref(), Some(USUAL));
        assert_eq!(output(&services[1].1, "echo here").await, "here\n");
    }
    let asked = fixture.requests().await.get("POST /api/snapshots").copied().unwrap_or_default();
    assert!((1..=2).contains(&asked), "each process asks at most once: {asked}");
    assert_eq!(fixture.client.snapshots().get(USUAL).await.unwrap().cpu, 3);
    // what exists is used again
    fixture.forget_requests().await;
    let later = Run::new(fixture.client.clone());
    let services = later.create_services(name(), project.settings()).await.unwrap();
    assert_eq!(started_from(&fixture, &services[0].1).await.as_deref(), Some(USUAL));
    assert_eq!(fixture.requests().await.get("POST /api/snapshots"), None);
    for run in [other, later] {
        assert_eq!(run.finish(true).await, []);
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_the_users_own_is_started_from_and_none_is_made() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let own = CreateSnapshot {
        name: "own".to_owned(),
        image_name: Some("docker:28.3.3-dind".to_owned()),
        ..CreateSnapshot::default()
    };
    fixture.client.snapshots().create(&own).await.unwrap();
    fixture.forget_requests().await;
    let project = Project::new(&format!("{IDLE}x-daytona: {{snapshot: own}}\n"));
    let services = project.create(&fixture).await.unwrap();
    assert_eq!(started_from(&fixture, &services[0].1).await.as_deref(), Some("own"));
    assert_eq!(fixture.requests().await.get("POST /api/snapshots"), None);
    assert_eq!(output(&services[1].1, "echo here").await, "here\n");
    fixture.finish().await;
}
