//! What keeps services apart from the machine around them.

use super::project::{Project, daytona, in_machine, possible};
use crate::fixture::{output, shell};

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
         command: sleep infinity\n    networks: [inside]\nnetworks: {inside: {internal: true}}\n",
    );
    let services = project.create(&fixture).await.unwrap();
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
async fn a_person_is_led_into_the_container_and_not_into_the_machine() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n  web:\n    build: image\n    command: sleep infinity\n",
    );
    let services = project.create(&fixture).await.unwrap();
    let mut entries = Vec::new();
    for (_, service) in &services {
        let command = service.shell_command(Some("root")).await.unwrap();
        let (ssh, inside) = command.split_once(" 'docker exec -it ").unwrap();
        assert!(ssh.starts_with("ssh -t "), "{command}");
        assert!(inside.contains(service.container_id().unwrap()), "{command}");
        // what the machine's shell makes of it, without the terminal that only ssh brings
        let inside = command.split_once(" '").unwrap().1.trim_end_matches('\'').replace("'\\''", "'");
        let line = format!("echo 'hostname; exit' | {}", inside.replacen("-it", "-i", 1));
        let shown = in_machine(&fixture, service, &line).await;
        let own = service.exec(shell("hostname")).await.unwrap().stdout;
        assert_eq!(shown.trim(), own.trim(), "{command}");
        entries.push(ssh.to_owned());
    }
    assert_eq!(entries[0], entries[1], "a new token would end the first one");
    fixture.finish().await;
}
