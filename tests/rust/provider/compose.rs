//! Several services: a real Docker Engine in a sandbox, and Compose.

mod cancelled;
mod commands;
mod deaths;
mod failures;
mod isolation;
mod project;
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
