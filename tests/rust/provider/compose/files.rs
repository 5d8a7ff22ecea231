//! What the services get of this machine's files, and of the platform's volumes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::project::{Project, daytona, possible};
use crate::fixture::output;

#[tokio::test(flavor = "multi_thread")]
async fn a_build_has_the_permissions_times_and_links_of_its_context() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    command: sleep infinity\n    build:\n      context: image\n      dockerfile: Dockerfile.own\n      \
         args: {TEXT: \"first\\nsecond\"}\n  web: {build: image, command: sleep infinity}\n",
    );
    let at = |path: &str| project.0.path().join("image").join(path);
    let dockerfile = fs::read_to_string(at("Dockerfile")).unwrap();
    let own = "ARG TEXT\nRUN echo \"$TEXT\" >/text\nCOPY Dockerfile /copied\nCOPY tree /tree\nCOPY linked /linked\n";
    fs::write(at("Dockerfile.own"), dockerfile + own).unwrap();
    fs::create_dir_all(at("tree/bin")).unwrap();
    fs::write(at("tree/key"), "key").unwrap();
    fs::set_permissions(at("tree/key"), fs::Permissions::from_mode(0o400)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(500_000_000);
    fs::File::open(at("tree/key")).unwrap().set_modified(old).unwrap();
    fs::write(project.0.path().join("secret"), "of this machine").unwrap();
    symlink("../key", at("tree/bin/key")).unwrap();
    symlink("../../secret", at("tree/out")).unwrap();
    symlink("tree/bin", at("linked")).unwrap();
    let services = project.create(&fixture).await.unwrap();
    let default = &services[0].1;
    assert_eq!(output(default, "cat /text").await, "first\nsecond\n");
    assert_eq!(output(default, "grep -c COPY /copied").await, "1\n");
    assert_eq!(output(default, "stat -c '%a %Y %U' /tree/key").await, "400 500000000 root\n");
    assert_eq!(output(default, "cat /tree/bin/key; readlink /tree/bin/key").await, "key../key\n");
    assert_eq!(output(default, "readlink /linked/key; readlink /tree/out").await, "../key\n../../secret\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_share_what_lies_below_what_another_mounts() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default: {build: image, command: sleep infinity, volumes: ['./shared/logs:/logs', './shared/conf:/conf']}\n  \
         web: {build: image, command: sleep infinity, volumes: ['./shared:/shared']}\n",
    );
    fs::create_dir(project.0.path().join("shared")).unwrap();
    fs::write(project.0.path().join("shared/conf"), "old\n").unwrap();
    let services = project.create(&fixture).await.unwrap();
    let (default, web) = (&services[0].1, &services[1].1);
    output(web, "echo line >/shared/logs/x; echo new >/shared/conf").await;
    assert_eq!(output(default, "cat /logs/x /conf").await, "line\nnew\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seccomp_profile_of_this_machine_holds_in_its_service() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default: {build: image, command: sleep infinity, security_opt: ['seccomp:./profile.json']}\n  \
         web: {build: image, command: sleep infinity}\n",
    );
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#;
    fs::write(project.0.path().join("profile.json"), profile).unwrap();
    let services = project.create(&fixture).await.unwrap();
    let make = "ln -s target /made 2>&1 || true";
    assert!(output(&services[0].1, make).await.contains("Function not implemented"));
    assert_eq!(output(&services[1].1, make).await, "");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_mounts_a_volume_of_the_platform_and_no_directory_of_this_machine() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    fixture.make_volume("cache").await;
    let project = Project::new("");
    let here = project.0.path().display();
    // a directory of that path exists here too
    let compose = format!(
        "services:\n  default: {{build: image, command: sleep infinity, volumes: ['{here}:/cache']}}\n  \
         web: {{build: image, command: sleep infinity, volumes: [{{type: bind, source: {here}/part, target: /part, bind: {{create_host_path: true}}}}]}}\n\
         x-daytona: {{volumes: ['cache:{here}']}}\n"
    );
    fs::write(project.0.path().join("compose.yaml"), compose).unwrap();
    let first = project.create(&fixture).await.unwrap();
    assert_eq!(
        output(&first[0].1, "ls /cache; mkdir -p /cache/part; echo kept >/cache/part/file").await,
        "part\n"
    );
    assert_eq!(output(&first[1].1, "cat /part/file").await, "kept\n");
    let second = project.create(&fixture).await.unwrap();
    assert_eq!(output(&second[0].1, "cat /cache/part/file").await, "kept\n");
    fixture.finish().await;
}
