//! Lists: filters, order, cursors and pages.

use http::Method;
use serde_json::{Value, json};

use crate::client::Daytona;

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

async fn daytona_with(names: &[&str]) -> Daytona {
    let daytona = Daytona::start().await;
    for (index, name) in names.iter().enumerate() {
        let parity = if index % 2 == 0 { "even" } else { "odd" };
        daytona.create(json!({"name": name, "labels": {"run": "1", "parity": parity}})).await;
    }
    daytona
}

#[tokio::test]
async fn an_item_lacks_the_fields_of_single_reads() {
    let daytona = daytona_with(&["a"]).await;
    let page = daytona.get("/api/sandbox").await.expect(200);
    let item = &page["items"][0];
    for field in ["env", "kvm", "volumes", "buildInfo"] {
        assert!(item.get(field).is_none(), "{field}");
    }
    for field in
        ["id", "organizationId", "networkBlockAll", "cpu", "toolboxProxyUrl", "labels", "target", "user"]
    {
        assert!(item.get(field).is_some(), "{field}");
    }
    assert_eq!(page["nextCursor"], Value::Null);
}

#[tokio::test]
async fn cursors_lead_through_all_sandboxes_once() {
    let all = ["a", "b", "c", "d", "e"];
    let daytona = daytona_with(&all).await;
    for (sort, order) in [("name", "asc"), ("createdAt", "desc"), ("cpu", "asc"), ("lastActivityAt", "desc")]
    {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/sandbox?limit=2&sort={sort}&order={order}&cursor={cursor}");
            let page = daytona.get(&path).await.expect(200);
            assert!(names(&page).len() <= 2);
            seen.extend(names(&page).into_iter().map(str::to_owned));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = next.replace('+', "%2B").replace('=', "%3D").replace('/', "%2F"),
                None => break,
            }
        }
        if sort == "name" {
            assert_eq!(seen, all);
        } else if sort != "cpu" {
            assert_eq!(seen, ["e", "d", "c", "b", "a"], "{sort}");
        }
        seen.sort();
        assert_eq!(seen, all, "{sort}");
    }
}

#[tokio::test]
async fn filters_narrow_a_list() {
    let daytona = daytona_with(&["inspect-a", "inspect-b", "other"]).await;
    daytona.post("/api/sandbox/other/stop", Value::Null).await.expect(200);
    daytona.wait_for("other", "stopped").await;
    daytona
        .post("/api/sandbox", json!({"name": "failed", "env": {"TEST_START": "fail"}}))
        .await
        .refused(400, "failed");
    let labels =
        |json: &str| format!("labels={}", json.replace('{', "%7B").replace('}', "%7D").replace('"', "%22"));
    for (query, expected) in [
        ("name=INSPECT".to_owned(), vec!["inspect-a", "inspect-b"]),
        ("name=nspect".to_owned(), vec![]),
        (labels(r#"{"parity":"even"}"#), vec!["inspect-a", "other"]),
        (labels(r#"{"parity":"even","run":"2"}"#), vec![]),
        ("states=stopped".to_owned(), vec!["other"]),
        ("states=stopped&states=error".to_owned(), vec!["failed", "other"]),
        ("isPublic=true".to_owned(), vec![]),
        ("minCpu=2".to_owned(), vec![]),
        ("maxMemoryGiB=1&states=started".to_owned(), vec!["inspect-a", "inspect-b"]),
        ("createdAtAfter=2100-01-01T00:00:00Z".to_owned(), vec![]),
        ("createdAtAfter=2020-01-01&states=started".to_owned(), vec!["inspect-a", "inspect-b"]),
        ("regionIds=us".to_owned(), vec![]),
        ("snapshots=daytonaio/sandbox:0.5.0-slim&states=stopped".to_owned(), vec!["other"]),
    ] {
        let page = daytona.get(&format!("/api/sandbox?sort=name&order=asc&{query}")).await.expect(200);
        assert_eq!(names(&page), expected, "{query}");
    }
    daytona.delete("/api/sandbox/failed").await.expect(200);
    let errored = daytona.get("/api/sandbox?states=error").await.expect(200);
    assert_eq!(names(&errored), [""; 0]);
}

#[tokio::test]
async fn a_list_query_that_makes_no_sense_is_refused() {
    let daytona = Daytona::start().await;
    for (query, text) in [
        ("labels=%7B", "Invalid labels JSON format"),
        ("cursor=abc", "Invalid cursor provided"),
        ("limit=0", "limit must not be less than 1"),
        ("limit=201", "limit must not be greater than 200"),
        ("limit=x", "limit must be an integer number"),
        ("states=destroyed", "states"),
        ("states=started,stopped", "states"),
        ("sort=age", "sort must be one of"),
        ("order=up", "order must be one of"),
        ("createdAtAfter=now", "valid ISO 8601"),
    ] {
        daytona.get(&format!("/api/sandbox?{query}")).await.refused(400, text);
    }
}

#[tokio::test]
async fn the_deprecated_list_has_pages_of_whole_sandboxes() {
    let daytona = daytona_with(&["a", "b", "c"]).await;
    let page = daytona.get("/api/sandbox/paginated?limit=2&page=2&sort=name&order=asc").await.expect(200);
    assert_eq!(names(&page), ["c"]);
    assert_eq!((&page["total"], &page["page"], &page["totalPages"]), (&json!(3), &json!(2), &json!(2)));
    assert!(page["items"][0].get("env").is_some());
}

#[tokio::test]
async fn sandboxes_on_their_way_out_are_listed_under_their_new_name() {
    let daytona = daytona_with(&["a"]).await;
    daytona.engine().failing_deletions.store(1, std::sync::atomic::Ordering::SeqCst);
    daytona.call(Method::DELETE, "/api/sandbox/a", Value::Null).await.expect(200);
    let page = daytona.get("/api/sandbox").await.expect(200);
    assert!(names(&page)[0].starts_with("DESTROYED_a_"), "{page}");
    assert_eq!(page["items"][0]["state"], "destroying");
}

#[tokio::test]
async fn a_zone_of_the_official_sdk_shifts_a_filter_by_hours() {
    let daytona = Daytona::start().await;
    let id = daytona.create(json!({"name": "a"})).await;
    let created = daytona.get(&format!("/api/sandbox/{id}")).await.expect(200)["createdAt"].clone();
    let created = created.as_str().unwrap().trim_end_matches('Z').to_owned();
    // as the generated client writes the same time of another zone: %z has no colon
    for (zone, expected) in [("%2B0100", vec!["a"]), ("-0100", vec![]), ("-0500", vec![])] {
        let page = daytona.get(&format!("/api/sandbox?createdAtAfter={created}{zone}")).await.expect(200);
        assert_eq!(names(&page), expected, "{zone}");
    }
}
