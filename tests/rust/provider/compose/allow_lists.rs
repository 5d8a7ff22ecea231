//! Allow lists of a task hold for the machine around the services, and so for each of them.

use std::fs;

use inspect_daytona::ErrorKind;
use inspect_daytona::local::control::{DockerChoice, LocalOptions};

use super::project::{IDLE, Project, possible};
use crate::fixture::shell;
use crate::network::{Peer, gateway};

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_networks_holds_for_every_service() {
    if !possible() {
        return;
    }
    let options = LocalOptions { docker: DockerChoice::Off, ..LocalOptions::default() };
    let Some(fixture) = gateway(options).await else { return };
    let (listed, other) = (Peer::new(), Peer::new());
    let project =
        Project::new(&format!("{IDLE}x-daytona: {{network_allow_list: ['{}/32']}}\n", listed.address));
    let services = project.create(&fixture).await.unwrap();
    let created = fixture.client.sandboxes().find(services[0].1.id()).await.unwrap().unwrap();
    assert_eq!(created.network_allow_list, Some(format!("{}/32", listed.address)));
    for (name, service) in &services {
        let ask = |peer: &Peer| shell(&format!("timeout 10 nc {} {} </dev/null", peer.address, peer.port));
        let answer = service.exec(ask(&listed)).await.unwrap();
        assert_eq!(answer.stdout, "hello\n", "{name}: {answer:?}");
        let refused = service.exec(ask(&other)).await.unwrap();
        assert!(refused.returncode != 0 && refused.stdout.is_empty(), "{name}: {refused:?}");
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_names_reaches_the_machine_of_several_services() {
    if !possible() {
        return;
    }
    let options = LocalOptions { docker: DockerChoice::Off, ..LocalOptions::default() };
    let Some(fixture) = gateway(options).await else { return };
    let project =
        Project::new(&format!("{IDLE}x-daytona: {{domain_allow_list: ['*.example.org', example.com]}}\n"));
    let services = project.create(&fixture).await.unwrap();
    let created = fixture.client.sandboxes().find(services[0].1.id()).await.unwrap().unwrap();
    assert_eq!(created.domain_allow_list.as_deref(), Some("*.example.org,example.com"));
    fixture.finish().await;
}

#[test]
fn what_would_keep_images_from_being_pulled_is_refused() {
    let project = Project::new("");
    for (settings, says) in [
        ("network_block_all: true", "network_block_all"),
        ("network_allow_list: [10.0.0.0/8], domain_allow_list: [example.org]", "domain_allow_list"),
    ] {
        fs::write(project.0.path().join("compose.yaml"), format!("{IDLE}x-daytona: {{{settings}}}\n"))
            .unwrap();
        let error = project.try_settings().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains(says), "{error}");
    }
}
