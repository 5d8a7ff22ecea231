//! Logs of image builds, as far as they are, or to their end.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::super::error::{ApiError, ApiResult};
use super::super::extract::Pairs;
use super::super::images::Flight;
use super::super::snapshots::missing;
use super::super::state::{Control, closed};

const CHUNK: usize = 32 * 1024;
/// How often a log that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// `GET …/build-logs?follow=true` of a sandbox.
pub(super) async fn of_sandbox(
    State(control): State<Control>,
    Path(key): Path<String>,
    query: Pairs,
) -> ApiResult<Response> {
    let flight = control.with(&key, |record, _| Ok(record.preparation.clone()))?;
    answer(&control, flight, &query, &key)
}

/// The same of a snapshot.
pub(super) async fn of_snapshot(
    State(control): State<Control>,
    Path(key): Path<String>,
    query: Pairs,
) -> ApiResult<Response> {
    let flight = {
        let store = control.store();
        let id = store.snapshots.find(&key).ok_or_else(|| missing(&key))?.id.clone();
        store.snapshots.preparation(&id)
    };
    answer(&control, flight, &query, &key)
}

fn answer(control: &Control, flight: Option<Arc<Flight>>, query: &Pairs, key: &str) -> ApiResult<Response> {
    let follow = query.boolean("follow")?.unwrap_or(false);
    let flight = flight
        .ok_or_else(|| ApiError::not_found(format!("Build logs of {key} not found: it was not built")))?;
    let reading = Reading { control: control.clone(), flight, file: None, follow };
    let stream = futures_util::stream::try_unfold(reading, Reading::next);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(stream)).into_response())
}

struct Reading {
    control: Control,
    flight: Arc<Flight>,
    file: Option<File>,
    follow: bool,
}

impl Reading {
    async fn next(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        loop {
            // asked before the last read, so that nothing is missed
            let last = !self.follow || self.flight.is_done();
            let chunk = self.read().await?;
            if !chunk.is_empty() {
                return Ok(Some((chunk, self)));
            }
            if last {
                return Ok(None);
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = closed(self.control.closing.subscribe()) => return Ok(None),
            }
        }
    }

    /// What has been written since the last time; nothing while there is no log.
    async fn read(&mut self) -> std::io::Result<Bytes> {
        if self.file.is_none() {
            match File::open(self.flight.log()).await {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let Some(file) = &mut self.file else { return Ok(Bytes::new()) };
        let mut chunk = vec![0; CHUNK];
        let length = file.read(&mut chunk).await?;
        chunk.truncate(length);
        Ok(chunk.into())
    }
}
