//! Carries out the faults of [`super::faults`] on requests and answers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::error::ApiError;
use super::faults::{Fault, QuotaResource};
use super::quota;
use super::state::{Control, closed};

/// Bodies up to this size are replayed, as by Daytona's proxies.
const MAX_REPLAYED_BODY: u64 = 256 * 1024;

/// The connection that a request came over; once set, it is reset instead of answered.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionReset(Arc<AtomicBool>);

impl ConnectionReset {
    pub(super) fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Lets the first matching fault rule strike.
pub(super) async fn inject(State(control): State<Control>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/admin/") {
        return next.run(request).await;
    }
    let Some(rule) = control.faults.strike(request.method(), path) else { return next.run(request).await };
    if let Some(milliseconds) = rule.delay_milliseconds {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(milliseconds)) => {}
            () = closed(control.closing.subscribe()) => {}
        }
    }
    strike(&control, rule.fault, request, next).await
}

async fn strike(control: &Control, fault: Fault, request: Request, next: Next) -> Response {
    let reset = request.extensions().get::<ConnectionReset>().cloned().unwrap_or_default();
    match fault {
        Fault::None => next.run(request).await,
        Fault::Status { status, body, content_type } => answer(status, body, content_type),
        Fault::Throttle { throttler, seconds } => ApiError::throttled(&throttler, seconds).into_response(),
        Fault::Quota { resource } => {
            let quota = control.options.quota;
            let (index, limit) = match resource {
                QuotaResource::Cpu => (0, quota.total_cpu),
                QuotaResource::Memory => (1, quota.total_memory),
                QuotaResource::Disk => (2, quota.total_disk),
            };
            quota::exceeded(index, limit.unwrap_or(10)).into_response()
        }
        Fault::ResetBefore => {
            reset.request();
            StatusCode::BAD_GATEWAY.into_response()
        }
        Fault::ResetAfter => {
            let response = next.run(request).await;
            // the answer's end is the proof that the work is done
            let _ = axum::body::to_bytes(response.into_body(), usize::MAX).await;
            reset.request();
            StatusCode::BAD_GATEWAY.into_response()
        }
        Fault::CutBody { bytes } => {
            next.run(request).await.map(|body| Body::new(CutBody { body, left: bytes }))
        }
        Fault::Replay { overlap } => replay(control, overlap, request, next).await,
        Fault::Forget { fields } => forget(&fields, request, next).await,
    }
}

fn answer(status: u16, body: Option<String>, content_type: Option<String>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let Some(body) = body else {
        return ApiError::new(status, "An injected fault").into_response();
    };
    let mut response = (status, body).into_response();
    let kind = content_type.and_then(|kind| HeaderValue::try_from(kind).ok());
    match kind {
        Some(kind) => response.headers_mut().insert(http::header::CONTENT_TYPE, kind),
        None => response.headers_mut().remove(http::header::CONTENT_TYPE),
    };
    response
}

/// Delivers a request twice and answers with the second answer.
async fn replay(control: &Control, overlap: bool, request: Request, next: Next) -> Response {
    let exact = request.body().size_hint().exact();
    if exact.is_none_or(|length| length > MAX_REPLAYED_BODY) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let second = next.clone();
    let copy = Request::from_parts(parts.clone(), Body::from(body.clone()));
    let first = async move {
        let response = next.run(copy).await;
        let _ = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    };
    if overlap {
        // it goes on although its answer is not wanted, as on a runner whose connection broke
        control.spawn(first);
    } else {
        first.await;
    }
    second.run(Request::from_parts(parts, Body::from(body))).await
}

/// Delivers a request without some fields of its body.
async fn forget(fields: &[String], request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let body = match serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(&body) {
        Ok(mut known) => {
            known.retain(|name, _| !fields.contains(name));
            Bytes::from(serde_json::Value::Object(known).to_string())
        }
        Err(_) => body,
    };
    parts.headers.remove(http::header::CONTENT_LENGTH);
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// A body that fails after a number of bytes.
struct CutBody {
    body: Body,
    left: u64,
}

impl HttpBody for CutBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err("an injected fault cut the body".into())));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else { return Poll::Pending };
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame.map(|frame| frame.map_err(Into::into))) };
        let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
        data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    // the length of the whole body stays announced, so that the cut shows
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
