//! What keeps services apart from the machine around them.

use std::time::Duration;

use inspect_daytona::local::control::{DockerChoice, LocalOptions};
use inspect_daytona::provider::connection::ssh_command;
use inspect_daytona::shim::protocol::{Action, Call, Reply, find_reply, script};

use serde_json::json;

use super::project::{IDLE, Project, daytona, in_machine, possible};
use crate::fixture::{output, shell, until};
use crate::network::{Peer, gateway};

/// Daytona's daemon listens on these ports of a machine in the cloud, and asks nobody for a key. Local Daytona's does
/// not, so web servers stand in for it.
#[tokio::test(flavor = "multi_thread")]
async fn services_reach_the_machine_around_them_but_not_its_toolbox() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n  hidden:\n    build: image\n    \
         command: sleep infinity\n    networks: [inside]\n  named:\n    build: image\n    command: sleep infinity\n    \
         networks: [lab]\nnetworks:\n  inside: {internal: true}\n  \
         lab: {driver_opts: {com.docker.network.bridge.name: lab0}}\n",
    );
    let (services, warnings) = project.create_told(&fixture).await;
    let services = services.unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let machine = &services[0].1;
    let serve = "mkdir -p /tmp/page && echo reached >/tmp/page/index.html; \
                 for port in 2280 22220 22222 33333 8080; do /bin/busybox httpd -p $port -h /tmp/page; done; echo served";
    assert!(in_machine(&fixture, machine, serve).await.contains("served"));
    for (name, service) in &services {
        // the machine is the first address of the service's network, whose own address is the last word
        let get = |port: u32| {
            format!(
                "for address in $(ip route); do :; done; \
                 timeout 3 wget -q -O - http://${{address%.*}}.1:{port}/ 2>/dev/null || echo nothing"
            )
        };
        assert_eq!(output(service, &get(8080)).await, "reached\n", "{name} reaches no machine at all");
        for port in [2280, 22220, 22222, 33333] {
            assert_eq!(output(service, &get(port)).await, "nothing\n", "{name} reaches port {port}");
        }
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_on_a_network_with_ipv6_do_not_reach_the_toolbox_by_it() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n    networks: [six]\n  web:\n    build: image\n    \
         command: sleep infinity\nnetworks:\n  six:\n    enable_ipv6: true\n    ipam: {config: [{subnet: 'fd00:7::/64', gateway: 'fd00:7::1'}]}\n",
    );
    let services = project.create(&fixture).await.unwrap();
    let default = &services[0].1;
    let serve = "mkdir -p /tmp/page && echo reached >/tmp/page/index.html; \
                 for port in 2280 22220 22222 33333 8080; do /bin/busybox httpd -p \"[::]:$port\" -h /tmp/page; done; echo served";
    assert!(in_machine(&fixture, default, serve).await.contains("served"));
    let get = |port: u32| {
        // a static wget knows no such addresses
        format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 fd00:7::1 {port} 2>/dev/null | grep reached || echo nothing"
        )
    };
    // addresses are checked for a moment before they are used
    until("the machine is reached", async || output(default, &get(8080)).await == "reached\n").await;
    for port in [2280, 22220, 22222, 33333] {
        assert_eq!(output(default, &get(port)).await, "nothing\n", "it reaches port {port}");
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_led_into_the_container_and_not_into_the_machine() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(IDLE);
    let services = project.create(&fixture).await.unwrap();
    // the cloud's answer: local Daytona has no ssh
    let answer = json!({
        "id": "1", "sandboxId": "any", "token": "secret", "expiresAt": "2100-01-01T00:00:00Z",
        "sshCommand": "ssh secret@ssh.example.org",
    });
    let fault = json!({"kind": "status", "status": 200, "body": answer.to_string()});
    fixture.fault("POST", "/api/sandbox/*/ssh-access", 2, fault).await;
    for (_, service) in &services {
        let container = service.container_id().unwrap();
        let (requests, shown) = fixture.count(async { service.shell_command(Some("root")) }).await;
        let expected =
            format!("inspect-daytona shell {} --container {container} --user 'root'", service.id());
        assert_eq!((requests, shown), (0, expected));
        let command =
            ssh_command(&fixture.client, service.id(), Some(container), Some("root")).await.unwrap();
        let (ssh, inside) = command.split_once(" 'docker exec -it ").unwrap();
        assert_eq!(ssh, "ssh -t secret@ssh.example.org");
        assert!(inside.contains(container), "{command}");
        // what the machine's shell makes of it, without the terminal that only ssh brings
        let inside = command.split_once(" '").unwrap().1.trim_end_matches('\'').replace("'\\''", "'");
        let line = format!("echo 'hostname; exit' | {}", inside.replacen("-it", "-i", 1));
        let shown = in_machine(&fixture, service, &line).await;
        let own = service.exec(shell("hostname")).await.unwrap().stdout;
        assert_eq!(shown.trim(), own.trim(), "{command}");
    }
    fixture.finish().await;
}

/// The machine has a way out, which an internal network has not.
#[tokio::test(flavor = "multi_thread")]
async fn an_internal_network_leads_to_its_services_and_nowhere_else() {
    if !possible() {
        return;
    }
    let options = LocalOptions { docker: DockerChoice::Off, ..LocalOptions::default() };
    let Some(fixture) = gateway(options).await else { return };
    let peer = Peer::new();
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n    networks: [outside]\n  \
         store:\n    build: image\n    command: sleep infinity\n    networks: [inside]\n  \
         web:\n    build: image\n    command: sh -c 'mkdir /page; echo page >/page/index.html; exec httpd -f -p 80 -h /page'\n    \
         networks: [outside, inside]\nnetworks:\n  outside: {}\n  inside: {internal: true}\n",
    );
    let services = project.create(&fixture).await.unwrap();
    let outside = format!("timeout 10 nc {} {} </dev/null || echo nothing", peer.address, peer.port);
    let page = "timeout 10 wget -q -O - http://web/ 2>/dev/null || echo nothing";
    for (name, service) in &services {
        let expected = if name == "store" { "nothing\n" } else { "hello\n" };
        let said = service.exec(shell(&outside)).await.unwrap().stdout;
        assert_eq!(said, expected, "{name}");
        assert_eq!(output(service, page).await, "page\n", "{name}");
    }
    let store = "timeout 10 nc -w 5 store 80 </dev/null 2>/dev/null; nslookup store >/dev/null 2>&1 && echo known || echo unknown";
    assert_eq!(output(&services[0].1, store).await, "unknown\n");
    fixture.finish().await;
}

/// The addresses of those who run commands belong to the network, of which two services may have the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_the_network_of_another_cannot_ask_for_its_commands() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n  grader:\n    build: image\n    command: sleep infinity\n    \
         network_mode: service:default\n",
    );
    let services = project.create(&fixture).await.unwrap();
    let (default, grader) = (&services[0].1, &services[1].1);
    let secret = {
        let grader = grader.clone();
        tokio::spawn(async move {
            output(&grader, "echo secret; until test -e /tmp/end; do sleep 0.1; done").await
        })
    };
    // its own supervisors are there too
    let listed = "until grep -o '@inspect-daytona-[0-9a-f]*' /proc/net/unix | sort -u | grep -c . | grep -q 2; do sleep 0.1; done; \
                  grep -o '@inspect-daytona-[0-9a-f]*' /proc/net/unix | sort -u";
    let ids = output(default, listed).await;
    let mut answers = Vec::new();
    for id in ids.lines().filter_map(|line| line.strip_prefix("@inspect-daytona-")) {
        for action in [Action::Attach, Action::Kill] {
            let id = id.parse().unwrap();
            let call = Call { id, wait: Duration::from_millis(100), acks: Vec::new(), user: None, action };
            let asked = shell(&script("/.inspect-daytona/program/shim", &call));
            answers.push(find_reply(&default.exec(asked).await.unwrap().stdout, id).unwrap());
        }
    }
    assert!(answers.len() >= 4, "{answers:?}");
    for answer in answers {
        assert!(matches!(answer, Reply::Lost(_) | Reply::Collected), "{answer:?}");
    }
    output(grader, "touch /tmp/end").await;
    assert_eq!(secret.await.unwrap(), "secret\n");
    fixture.finish().await;
}
