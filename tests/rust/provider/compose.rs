//! Several services: a real Docker Engine in a sandbox, and Compose.

mod allow_lists;
mod cancelled;
mod commands;
mod creation;
mod deaths;
mod endings;
mod engine;
mod failures;
mod files;
mod isolation;
mod project;
mod scripted;
mod snapshots;

use inspect_daytona::ErrorKind;

use crate::fixture::output;
use project::{Project, daytona, possible};

/// `.ci/run` installs what tests may lack; then none of them is skipped for it.
#[test]
fn docker_is_there_where_it_is_expected() {
    if std::env::var("INSPECT_DAYTONA_TESTS_EXPECT").as_deref() == Ok("docker") {
        assert!(possible(), "no sandbox can have an Engine");
        assert!(crate::docker_base::Base::new().is_some(), "no Engine builds images");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_is_an_environment_and_the_default_one_comes_first() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  web:\n    build: image\n    command: httpd -f -p 80 -h /data\n    volumes: ['./data:/data:ro']\n    \
         healthcheck: {test: [CMD, wget, -q, -O, /dev/null, http://localhost/page], interval: 1s, retries: 20}\n  \
         default:\n    build: image\n    command: sleep infinity\n    depends_on: {web: {condition: service_healthy}}\n    \
         environment: {GREETING: 'a$$b'}\n  once:\n    build: image\n    command: 'true'\n",
    );
    std::fs::create_dir(project.0.path().join("data")).unwrap();
    std::fs::write(project.0.path().join("data/page"), "hello\n").unwrap();
    let services = project.create(&fixture).await.unwrap();
    let names: Vec<_> = services.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["default", "web"], "a service that has ended is none");
    let (default, web) = (&services[0].1, &services[1].1);
    assert_eq!(output(default, "wget -q -O - http://web/page; echo $GREETING").await, "hello\na$b\n");
    assert_eq!(
        output(web, "cat /data/page; hostname >/tmp/own; test -s /tmp/own && echo own").await,
        "hello\nown\n"
    );
    default.write_file("/tmp/file", "text".into()).await.unwrap();
    assert_eq!(&default.read_file("/tmp/file", 100).await.unwrap()[..], b"text");
    let error = web.read_file("/tmp/file", 100).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileNotFound);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_ports_and_networks_mean_what_they_mean_to_compose() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n    volumes: ['shared:/shared']\n  web:\n    build: image\n    \
         command: sh -c 'mkdir /page; echo page >/page/index.html; exec httpd -f -p 80 -h /page'\n    ports: ['8080:80']\n  \
         alone:\n    build: image\n    command: sleep infinity\n    network_mode: none\n    volumes: ['shared:/shared']\nvolumes: {shared: {}}\n",
    );
    let services = project.create(&fixture).await.unwrap();
    let service = |name: &str| &services.iter().find(|(found, _)| found == name).unwrap().1;
    output(service("default"), "echo kept >/shared/file").await;
    assert_eq!(output(service("alone"), "cat /shared/file").await, "kept\n");
    let interfaces = "ls /sys/class/net | grep -v '^lo$' | wc -l";
    assert_eq!(output(service("alone"), interfaces).await.trim(), "0");
    assert_ne!(output(service("default"), interfaces).await.trim(), "0");
    let published = "for i in $(seq 100); do timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080 && \
                     printf \"GET /index.html HTTP/1.0\\r\\n\\r\\n\" >&3 && tail -n 1 <&3' 2>/dev/null && break; sleep 0.1; done";
    assert_eq!(project::in_machine(&fixture, service("web"), published).await, "page\n");
    fixture.finish().await;
}

/// The build and the service's health take longer than the machine may.
#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_is_for_the_machine_alone() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    command: sleep infinity\n    build:\n      context: image\n      dockerfile_inline: |\n        \
         FROM scratch\n        COPY busybox /bin/busybox\n        RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n        \
         RUN sleep 4\n  web:\n    build: image\n    command: sh -c 'sleep 4; touch /up; sleep infinity'\n    \
         healthcheck: {test: [CMD, test, -e, /up], interval: 1s, retries: 20}\nx-daytona: {timeout: 3}\n",
    );
    let services = project.create(&fixture).await.unwrap();
    assert_eq!(output(&services[0].1, "echo here").await, "here\n");
    fixture.finish().await;
}
