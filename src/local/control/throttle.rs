//! Rate limits: named throttlers with a window of one minute, counted for the one organization.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method};

use super::error::ApiError;
use super::options::RateLimits;
use super::state::Control;

/// Length of a window.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Names as they stand in headers, in the order of [`Throttle`]'s windows.
const NAMES: [&str; 3] = ["authenticated", "sandbox-create", "sandbox-lifecycle"];

/// The counters.
#[derive(Debug)]
pub(super) struct Throttle {
    limits: [u64; 3],
    windows: Mutex<[Window; 3]>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: SystemTime,
    count: u64,
}

/// What one request was told.
struct Admission {
    limit: u64,
    remaining: Option<u64>,
    reset: u64,
}

impl Throttle {
    pub(super) fn new(limits: RateLimits) -> Self {
        let window = Window { began: SystemTime::UNIX_EPOCH, count: 0 };
        Self { limits: [limits.general, limits.create, limits.lifecycle], windows: Mutex::new([window; 3]) }
    }

    fn admit(&self, throttler: usize, now: SystemTime) -> Option<Admission> {
        let limit = *self.limits.get(throttler)?;
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.get_mut(throttler)?;
        let age = now.duration_since(window.began).unwrap_or(WINDOW);
        if age >= WINDOW {
            *window = Window { began: now, count: 0 };
        }
        let left = WINDOW.saturating_sub(now.duration_since(window.began).unwrap_or_default());
        let remaining = limit.checked_sub(window.count + 1);
        if remaining.is_some() {
            window.count += 1;
        }
        Some(Admission { limit, remaining, reset: left.as_secs().max(1) })
    }
}

/// Counts a request against its throttler, and says in headers what is left.
pub(super) async fn throttle(State(control): State<Control>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let Some(throttler) = route.and_then(|route| throttler(request.method(), route)) else {
        return next.run(request).await;
    };
    let name = NAMES.get(throttler).copied().unwrap_or_default();
    let Some(admission) = control.throttle.admit(throttler, control.now()) else {
        return next.run(request).await;
    };
    let Some(remaining) = admission.remaining else {
        return ApiError::throttled(name, admission.reset).into_response();
    };
    let mut response = next.run(request).await;
    for (what, value) in [("limit", admission.limit), ("remaining", remaining), ("reset", admission.reset)] {
        if let Ok(header) = HeaderName::try_from(format!("x-ratelimit-{what}-{name}")) {
            response.headers_mut().insert(header, HeaderValue::from(value));
        }
    }
    response
}

/// The throttler of a route: an index into [`NAMES`]; none for public, admin and toolbox routes.
fn throttler(method: &Method, route: &str) -> Option<usize> {
    if !route.starts_with("/api/") || route.starts_with("/api/admin/") || super::auth::is_public(route) {
        return None;
    }
    let last = route.strip_prefix("/api/sandbox/{sandbox}");
    Some(match (method, route, last) {
        (&Method::POST, "/api/sandbox", _) | (&Method::POST, _, Some("/fork")) => 1,
        (&Method::DELETE, _, Some(""))
        | (&Method::POST, _, Some("/recover" | "/start" | "/stop" | "/pause" | "/resize" | "/archive")) => 2,
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_admits_its_limit_and_opens_again_after_a_minute() {
        let throttle = Throttle::new(RateLimits { general: 2, create: 1, lifecycle: 1 });
        let now = SystemTime::now();
        let remaining = |at| throttle.admit(0, at).and_then(|admission| admission.remaining);
        assert_eq!([remaining(now), remaining(now), remaining(now)], [Some(1), Some(0), None]);
        assert_eq!(remaining(now + Duration::from_secs(59)), None);
        assert_eq!(remaining(now + WINDOW), Some(1));
        assert_eq!(throttle.admit(1, now).and_then(|admission| admission.remaining), Some(0));
    }

    #[test]
    fn routes_have_the_throttlers_of_the_real_server() {
        for (method, route, expected) in [
            (Method::POST, "/api/sandbox", Some(1)),
            (Method::POST, "/api/sandbox/{sandbox}/fork", Some(1)),
            (Method::DELETE, "/api/sandbox/{sandbox}", Some(2)),
            (Method::POST, "/api/sandbox/{sandbox}/stop", Some(2)),
            (Method::GET, "/api/sandbox/{sandbox}", Some(0)),
            (Method::DELETE, "/api/sandbox/{sandbox}/ssh-access", Some(0)),
            (Method::GET, "/api/health", None),
            (Method::POST, "/api/admin/faults", None),
            (Method::POST, "/toolbox/{sandbox}/{*path}", None),
        ] {
            assert_eq!(throttler(&method, route), expected, "{method} {route}");
        }
    }
}
