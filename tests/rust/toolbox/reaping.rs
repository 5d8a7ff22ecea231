//! Orphans beside awaited children, in a process that adopts orphans, as the first process of a sandbox does.

use serde_json::json;

use crate::server::{As, Server, eventually};

/// The states of the children of a process.
fn children(pid: u32) -> Vec<char> {
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    processes
        .filter_map(|stat| {
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let state = fields.next()?.chars().next()?;
            (fields.next()? == pid.to_string()).then_some(state)
        })
        .collect()
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test]
async fn three_hundred_orphans_are_reaped_beside_exact_exit_codes() {
    let server = Server::spawn(As::Subreaper).await;
    server.execute("true").await;
    let files = open_files(server.pid());
    let orphans = (0..30).map(|_| {
        // each `( … & )` leaves its child without a parent
        server.execute("for n in 1 2 3 4 5 6 7 8 9 10; do ( (sleep 0.2; exit 7) >/dev/null 2>&1 & ); done")
    });
    let commands = (0..120).map(|number| {
        let server = &server;
        async move {
            let (code, result) =
                server.execute(&format!("sleep 0.1; echo {number}; exit {}", number % 256)).await;
            assert_eq!((code, result), (number % 256, format!("{number}\n")));
        }
    });
    let (orphans, _) =
        tokio::join!(futures_util::future::join_all(orphans), futures_util::future::join_all(commands));
    assert!(orphans.iter().all(|(code, _)| *code == 0));
    eventually("no child is left", || children(server.pid()).is_empty()).await;
    eventually("no file is left open", || open_files(server.pid()) <= files).await;
}

#[tokio::test]
async fn nothing_is_left_of_timeouts_and_failed_starts() {
    let server = Server::spawn(As::Subreaper).await;
    server.execute("true").await;
    let files = open_files(server.pid());
    let timed_out = json!({"command": "sleep 1000", "timeout": 1}).to_string();
    let not_started = json!({"command": "true", "cwd": "/no/such/directory"}).to_string();
    let calls = (0..40).map(|number| {
        let body = if number % 2 == 0 { timed_out.clone() } else { not_started.clone() };
        server.post("/process/execute", body)
    });
    for (number, answer) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(answer.status.as_u16(), if number % 2 == 0 { 408 } else { 200 });
    }
    eventually("no child is left", || children(server.pid()).is_empty()).await;
    eventually("no file is left open", || open_files(server.pid()) <= files).await;
}
