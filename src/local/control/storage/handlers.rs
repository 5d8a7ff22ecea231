//! The requests of S3 that are understood; all others are refused.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::answer::{Refusal, escape, xml};
use super::{BUCKET, Object, signature};
use crate::local::control::state::Control;
use crate::local::control::timestamp;

/// Bytes of a request that names the parts of an upload.
const LONGEST_LIST: usize = 2 << 20;
const CHUNK: usize = 64 * 1024;

/// What a verified request asks for.
struct Asked {
    method: Method,
    query: Vec<(String, String)>,
    digest: Option<String>,
    body: Body,
}

impl Asked {
    fn verified(control: &Control, request: Request) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let digest = signature::verify(
            &control.storage.credentials,
            &parts.method,
            &parts.uri,
            &parts.headers,
            // clients sign by the world's clock, whichever one this server goes by
            std::time::SystemTime::now(),
        )?;
        let query = signature::pairs(parts.uri.query().unwrap_or_default());
        Ok(Self { method: parts.method, query, digest, body })
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// `GET /{bucket}`: what objects there are.
pub(super) async fn bucket(State(control): State<Control>, request: Request) -> Response {
    let answer = Asked::verified(&control, request).and_then(|asked| match asked.method {
        Method::HEAD => Ok(StatusCode::OK.into_response()),
        Method::GET if asked.field("location").is_some() => {
            Ok(xml(&format!("<LocationConstraint>{}</LocationConstraint>", signature::REGION))
                .into_response())
        }
        Method::GET => list(&control, &asked),
        _ => Err(Refusal::not_implemented("Buckets can only be listed")),
    });
    answer.unwrap_or_else(IntoResponse::into_response)
}

fn list(control: &Control, asked: &Asked) -> Result<Response, Refusal> {
    let prefix = asked.field("prefix").unwrap_or_default();
    let own = prefix
        .strip_prefix(control.organization.as_str())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !own {
        return Err(Refusal::denied("Only the organization's own objects can be listed"));
    }
    let number = |name: &str, default: usize| match asked.field(name).filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| {
            Refusal::new(StatusCode::BAD_REQUEST, "InvalidArgument", format!("{name} must be a whole number"))
        }),
    };
    // the continuation token of our own answers is the number of objects that were listed
    let (most, skip) = (number("max-keys", 1000)?.min(1000), number("continuation-token", 0)?);
    let mut found: Vec<(String, Object)> = {
        let contents = control.storage.contents();
        let keyed = contents.objects.iter().map(|(hash, object)| (key(control, hash), object.clone()));
        keyed.filter(|(key, _)| key.starts_with(prefix)).collect()
    };
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let total = found.len();
    let page: Vec<_> = found.into_iter().skip(skip).take(most).collect();
    let (count, next) = (page.len(), skip + page.len());
    let items: Vec<String> = page
        .iter()
        .map(|(key, object)| {
            let (tag, modified) = (escape(&object.tag), timestamp::format(object.modified));
            let size = object.size;
            format!(
                "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>{tag}</ETag><Size>{size}</Size>\
                 <StorageClass>STANDARD</StorageClass></Contents>"
            )
        })
        .collect();
    let items = items.concat();
    let more = next < total && most > 0;
    let next =
        if more { format!("<NextContinuationToken>{next}</NextContinuationToken>") } else { String::new() };
    let prefix = escape(prefix);
    Ok(xml(&format!(
        "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{BUCKET}</Name>\
         <Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{most}</MaxKeys>\
         <IsTruncated>{more}</IsTruncated>{next}{items}</ListBucketResult>"
    ))
    .into_response())
}

/// `/{bucket}/{organization}/{hash}/context.tar`.
pub(super) async fn object(
    State(control): State<Control>,
    Path(path): Path<String>,
    request: Request,
) -> Response {
    let answer = async {
        let asked = Asked::verified(&control, request)?;
        let hash = hash(&control, &path)?;
        act(&control, hash, asked).await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

async fn act(control: &Control, hash: &str, asked: Asked) -> Result<Response, Refusal> {
    let storage = &control.storage;
    let upload = asked.field("uploadId").map(str::to_owned);
    let digest = asked.digest.clone();
    match (asked.method.clone(), upload) {
        (Method::POST, None) if asked.field("uploads").is_some() => {
            let (id, key) = (storage.begin(hash), key(control, hash));
            Ok(xml(&format!(
                "<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>\
                 </InitiateMultipartUploadResult>"
            ))
            .into_response())
        }
        (Method::PUT, Some(id)) => {
            let number = asked.field("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
            let part = storage.put_part(hash, &id, number, asked.body, digest.as_deref()).await?;
            Ok([(header::ETAG, part.tag)].into_response())
        }
        (Method::POST, Some(id)) => {
            let body = axum::body::to_bytes(asked.body, LONGEST_LIST).await;
            let body = body.map_err(|_| {
                Refusal::new(StatusCode::BAD_REQUEST, "EntityTooLarge", "The list of parts is too long")
            })?;
            let object = storage.complete(hash, &id, &parts(&String::from_utf8_lossy(&body))).await?;
            let (key, tag) = (key(control, hash), escape(&object.tag));
            Ok(xml(&format!(
                "<CompleteMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{key}</Key><ETag>{tag}</ETag>\
                 </CompleteMultipartUploadResult>"
            ))
            .into_response())
        }
        (Method::DELETE, Some(id)) => {
            storage.abort(hash, &id).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (Method::PUT, None) => {
            let object = storage.put(hash, asked.body, digest.as_deref()).await?;
            Ok([(header::ETAG, object.tag)].into_response())
        }
        (method @ (Method::HEAD | Method::GET), None) => {
            let object = storage.contents().objects.get(hash).cloned().ok_or_else(Refusal::no_key)?;
            read(&object, method == Method::GET).await.map_err(|error| Refusal::system(&error))
        }
        _ => Err(Refusal::not_implemented("Objects can be read and written, no more")),
    }
}

async fn read(object: &Object, whole: bool) -> std::io::Result<Response> {
    let body = if whole {
        let file = File::open(&object.path).await?;
        Body::from_stream(futures_util::stream::try_unfold(file, async |mut file| {
            let mut chunk = vec![0; CHUNK];
            let length = file.read(&mut chunk).await?;
            chunk.truncate(length);
            Ok::<_, std::io::Error>((length > 0).then(|| (Bytes::from(chunk), file)))
        }))
    } else {
        Body::empty()
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_LENGTH, object.size.into());
    let modified = http_date(object);
    for (name, value) in [
        (header::ETAG, object.tag.as_str()),
        (header::LAST_MODIFIED, modified.as_str()),
        (header::CONTENT_TYPE, "application/x-tar"),
    ] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    Ok((headers, body).into_response())
}

/// A date as HTTP has it, for example `Tue, 23 Jun 2026 13:33:38 GMT`.
fn http_date(object: &Object) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = timestamp::format(object.modified);
    let part = |range| text.get(range).unwrap_or_default();
    let days = usize::try_from(timestamp::milliseconds(object.modified) / 86_400_000).unwrap_or_default();
    let month = part(5..7)
        .parse::<usize>()
        .ok()
        .and_then(|month| MONTHS.get(month.checked_sub(1)?))
        .unwrap_or(&"Jan");
    let weekday = WEEKDAYS.get(days % 7).unwrap_or(&"Thu");
    format!("{weekday}, {} {month} {} {} GMT", part(8..10), part(0..4), part(11..19))
}

fn key(control: &Control, hash: &str) -> String {
    format!("{}/{hash}/context.tar", control.organization)
}

/// The hash in a key. Other keys than those of contexts do not exist here.
fn hash<'a>(control: &Control, path: &'a str) -> Result<&'a str, Refusal> {
    let own = path.strip_prefix(control.organization.as_str()).and_then(|rest| rest.strip_prefix('/'));
    let Some(own) = own else {
        return Err(Refusal::denied("The object does not belong to the organization"));
    };
    let hash = own.strip_suffix("/context.tar").filter(|hash| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !hash.is_empty() && hash.len() <= 128 && hash.bytes().all(plain)
    });
    hash.ok_or_else(|| {
        Refusal::denied("Objects of local Daytona are named {organization}/{hash}/context.tar")
    })
}

/// The parts that the body of a completing request names: number and tag, in its order.
fn parts(document: &str) -> Vec<(u32, String)> {
    let field = |part: &str, name: &str| {
        let (_, rest) = part.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.trim().replace("&quot;", "\"").replace("&#34;", "\""))
    };
    document
        .split("<Part>")
        .skip(1)
        .filter_map(|part| Some((field(part, "PartNumber")?.parse().ok()?, field(part, "ETag")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_parts_of_an_upload_are_read_in_any_order_of_their_fields() {
        let document = "<CompleteMultipartUpload xmlns=\"x\"><Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part>\
                        <Part>\n<ETag>&quot;b&quot;</ETag> <PartNumber> 2 </PartNumber></Part></CompleteMultipartUpload>";
        assert_eq!(parts(document), [(1, "\"a\"".to_owned()), (2, "\"b\"".to_owned())]);
        assert!(parts("<CompleteMultipartUpload/>").is_empty());
    }

    #[test]
    fn dates_are_those_of_http() {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_782_221_618);
        let object = Object { path: "/".into(), size: 0, tag: String::new(), modified };
        assert_eq!(http_date(&object), "Tue, 23 Jun 2026 13:33:38 GMT");
    }
}
