//! Object storage, as an S3 client that is not ours sees it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use serde_json::Value;

use crate::client::{Daytona, Reply};

const LIFETIME: Duration = Duration::from_secs(60);

/// A client with the credentials of a server.
pub(crate) struct Client<'a> {
    daytona: &'a Daytona,
    pub(crate) bucket: Bucket,
    pub(crate) credentials: Credentials,
    pub(crate) organization: String,
}

impl<'a> Client<'a> {
    pub(crate) async fn new(daytona: &'a Daytona) -> Self {
        let access = daytona.get("/api/object-storage/push-access").await.expect(200);
        let text = |name: &str| access[name].as_str().unwrap().to_owned();
        let endpoint = text("storageUrl").parse().unwrap();
        Self {
            daytona,
            bucket: Bucket::new(endpoint, UrlStyle::Path, text("bucket"), text("region")).unwrap(),
            credentials: Credentials::new_with_token(text("accessKey"), text("secret"), text("sessionToken")),
            organization: text("organizationId"),
        }
    }

    fn key(&self, hash: &str) -> String {
        format!("{}/{hash}/context.tar", self.organization)
    }

    pub(crate) async fn send<'b>(
        &self,
        method: Method,
        action: &impl S3Action<'b>,
        body: impl Into<Bytes>,
    ) -> Reply {
        self.send_to(method, action.sign(LIFETIME).as_str(), body).await
    }

    async fn send_to(&self, method: Method, url: &str, body: impl Into<Bytes>) -> Reply {
        let path = url.strip_prefix(&format!("http://{}", self.daytona.address)).unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.daytona.address)
            .body(Full::new(body.into()))
            .unwrap();
        self.daytona.try_call(request).await.unwrap()
    }

    pub(crate) async fn put(&self, hash: &str, body: impl Into<Bytes>) {
        let key = self.key(hash);
        let put = self.bucket.put_object(Some(&self.credentials), &key);
        let reply = self.send(Method::PUT, &put, body).await;
        assert_eq!(reply.status.as_u16(), 200, "{:?}", reply.body);
    }
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

#[track_caller]
fn refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status.as_u16(), status, "{}", text(reply));
    assert!(text(reply).contains(&format!("<Code>{code}</Code>")), "{}", text(reply));
}

#[tokio::test]
async fn an_object_is_absent_then_written_then_read() {
    let daytona = Daytona::start().await;
    let client = Client::new(&daytona).await;
    let key = client.key("abc");
    let head = client.bucket.head_object(Some(&client.credentials), &key);
    assert_eq!(client.send(Method::HEAD, &head, "").await.status.as_u16(), 404);
    client.put("abc", "content").await;
    let found = client.send(Method::HEAD, &head, "").await;
    assert_eq!((found.status.as_u16(), &found.headers["content-length"]), (200, &"7".parse().unwrap()));
    // the MD5 of the content
    assert_eq!(found.headers["etag"], "\"9a0364b9e99bb480dd25e1f0284c8555\"");
    let get = client.bucket.get_object(Some(&client.credentials), &key);
    assert_eq!(text(&client.send(Method::GET, &get, "").await), "content");
}

#[tokio::test]
async fn objects_are_listed_by_prefix_and_page() {
    let daytona = Daytona::start().await;
    let client = Client::new(&daytona).await;
    for hash in ["b", "a", "c"] {
        client.put(hash, "x").await;
    }
    let mut list = client.bucket.list_objects_v2(Some(&client.credentials));
    list.with_prefix(client.organization.clone());
    list.with_max_keys(2);
    let page = client.send(Method::GET, &list, "").await;
    let page = rusty_s3::actions::ListObjectsV2::parse_response(text(&page)).unwrap();
    let keys: Vec<_> = page.contents.iter().map(|object| object.key.clone()).collect();
    assert_eq!(keys, [client.key("a"), client.key("b")]);
    list.with_continuation_token(page.next_continuation_token.unwrap());
    let page = client.send(Method::GET, &list, "").await;
    let page = rusty_s3::actions::ListObjectsV2::parse_response(text(&page)).unwrap();
    assert_eq!((page.contents.len(), page.next_continuation_token), (1, None));
    list = client.bucket.list_objects_v2(Some(&client.credentials));
    list.with_prefix(format!("{}/nothing/", client.organization));
    let page = client.send(Method::GET, &list, "").await;
    assert!(rusty_s3::actions::ListObjectsV2::parse_response(text(&page)).unwrap().contents.is_empty());
    list.with_prefix("another".to_owned());
    refused(&client.send(Method::GET, &list, "").await, 403, "AccessDenied");
}

#[tokio::test]
async fn parts_become_one_object_and_an_aborted_upload_none() {
    let daytona = Daytona::start().await;
    let client = Client::new(&daytona).await;
    let (key, credentials) = (client.key("abc"), Some(&client.credentials));
    let begin = async || {
        let create = client.bucket.create_multipart_upload(credentials, &key);
        let reply = client.send(Method::POST, &create, "").await;
        rusty_s3::actions::CreateMultipartUpload::parse_response(&reply.body).unwrap().upload_id().to_owned()
    };
    let id = begin().await;
    let mut tags = Vec::new();
    // in another order, and one of them twice
    for (number, body) in [(2, "two"), (1, "wrong"), (1, "one")] {
        let part = client.bucket.upload_part(credentials, &key, number, &id);
        let reply = client.send(Method::PUT, &part, body).await;
        tags.push(reply.headers["etag"].to_str().unwrap().to_owned());
    }
    let complete = |tags: Vec<String>| {
        let complete = client.bucket.complete_multipart_upload(
            credentials,
            &key,
            &id,
            tags.iter().map(String::as_str).collect::<Vec<_>>().into_iter(),
        );
        (complete.sign(LIFETIME), complete.body())
    };
    let (url, body) = complete(vec![tags[1].clone(), tags[0].clone()]);
    refused(&client.send_to(Method::POST, url.as_str(), body).await, 400, "InvalidPart");
    let (url, body) = complete(vec![tags[2].clone(), tags[0].clone()]);
    assert_eq!(client.send_to(Method::POST, url.as_str(), body.clone()).await.status.as_u16(), 200);
    refused(&client.send_to(Method::POST, url.as_str(), body).await, 404, "NoSuchUpload");
    let get = client.bucket.get_object(credentials, &key);
    assert_eq!(text(&client.send(Method::GET, &get, "").await), "onetwo");
    let id = begin().await;
    let abort = client.bucket.abort_multipart_upload(credentials, &key, &id);
    assert_eq!(client.send(Method::DELETE, &abort, "").await.status.as_u16(), 204);
    let part = client.bucket.upload_part(credentials, &key, 1, &id);
    refused(&client.send(Method::PUT, &part, "x").await, 404, "NoSuchUpload");
}

#[tokio::test]
async fn only_the_organizations_contexts_can_be_reached_and_only_with_its_credentials() {
    let daytona = Daytona::start().await;
    let client = Client::new(&daytona).await;
    let organization = &client.organization;
    for key in [
        "elsewhere/abc/context.tar".to_owned(),
        format!("{organization}/abc/other.tar"),
        format!("{organization}/a/b/context.tar"),
        format!("{organization}x/abc/context.tar"),
    ] {
        let put = client.bucket.put_object(Some(&client.credentials), &key);
        refused(&client.send(Method::PUT, &put, "x").await, 403, "AccessDenied");
    }
    let key = client.key("abc");
    let (access, secret) = (client.credentials.key(), client.credentials.secret());
    let token = client.credentials.token().unwrap();
    for (credentials, code) in [
        (Credentials::new_with_token("another", secret, token), "InvalidAccessKeyId"),
        (Credentials::new_with_token(access, "wrong", token), "SignatureDoesNotMatch"),
        (Credentials::new_with_token(access, secret, "wrong"), "InvalidToken"),
        (Credentials::new(access, secret), "InvalidToken"),
    ] {
        let put = client.bucket.put_object(Some(&credentials), &key);
        refused(&client.send(Method::PUT, &put, "x").await, 403, code);
    }
    let put = client.bucket.put_object(Some(&client.credentials), &key);
    refused(&client.send(Method::GET, &put, "x").await, 403, "SignatureDoesNotMatch");
    refused(
        &client.send_to(Method::PUT, &format!("http://{}/daytona/{key}", daytona.address), "x").await,
        403,
        "AccessDenied",
    );
    let get = client.bucket.get_object(Some(&client.credentials), &key);
    refused(&client.send(Method::GET, &get, "").await, 404, "NoSuchKey");
    // the key of the API is none of the storage, and the other way round
    let unsigned = daytona.call(Method::GET, "/daytona", Value::Null).await;
    refused(&unsigned, 403, "AccessDenied");
}
