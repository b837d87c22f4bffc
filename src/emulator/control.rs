//! The control of a running emulator over loopback: faults, switches, people, and the history.
//!
//! These requests are not the service's: they are in no history and take no part of any limit. A page in a browser can
//! send requests to loopback as well, so whatever names another host or comes from a page is refused. Other users of
//! the machine can send them too, which is why killing a process cannot be asked for here.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::json;

use super::action::Action;
use super::fault::Fault;
use super::http::Shared;
use super::world::World;

/// The longest body of a control request, in bytes.
const MAX_BODY: usize = 8 << 20;

/// The routes, below `/control`.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route(
            "/fault",
            get(list_faults).post(set_faults).delete(clear_faults),
        )
        .route("/world", post(set_world))
        .route("/actor", post(act))
        .route("/history", get(history))
        .route_layer(middleware::from_fn(only_from_here))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn only_from_here(request: Request, next: Next) -> Response {
    match refuse(request.headers()) {
        Some(cause) => (StatusCode::FORBIDDEN, format!("{cause}\n")).into_response(),
        None => next.run(request).await,
    }
}

/// Why a control request is refused, judged by its head.
fn refuse(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Some("a page in a browser may not control the emulator");
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let here = host.is_some_and(|authority| {
        let name = authority.host();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || address
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    });
    (!here).then_some("the emulator is controlled under its loopback address only")
}

/// All lines or none.
async fn set_faults(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let mut faults = Vec::new();
    for line in lines(&body) {
        match Fault::parse(line) {
            Ok(fault) if matches!(fault.action(), Action::Kill { .. }) => {
                let cause = "killing is set when the emulator is started, or in its own process";
                return wrong(line, cause);
            }
            Ok(fault) => faults.push(fault),
            Err(error) => return wrong(line, error),
        }
    }
    match shared.add_faults(faults) {
        Ok(()) => done(""),
        Err(error) => wrong("", error),
    }
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> Response {
    shared.clear_faults();
    done("")
}

async fn list_faults(State(shared): State<Arc<Shared>>) -> Response {
    let list = |(fault, used): (&Fault, u64)| json!({"fault": fault.text(), "used": used});
    let faults: Vec<_> = shared.faults(|faults| faults.list().map(list).collect());
    axum::Json(faults).into_response()
}

/// All lines or none.
async fn set_world(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let mut settings = shared.look(|world| world.settings().clone());
    for line in lines(&body) {
        if let Err(error) = settings.set(line) {
            return wrong(line, error);
        }
    }
    shared.configure(settings);
    done("")
}

/// Line by line, up to the first that cannot be done. Answers with the version each deed was about.
async fn act(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let mut told = String::new();
    for line in lines(&body) {
        match shared.with_world(|world: &mut World| world.act(line)) {
            Ok(revision) => told.push_str(&format!("{revision}\n")),
            Err(error) => return wrong(line, error),
        }
    }
    done(&told)
}

async fn history(State(shared): State<Arc<Shared>>) -> Response {
    let records: Vec<_> = shared.look(|world| world.history().iter().cloned().collect());
    let mut text = String::new();
    for record in records {
        text.push_str(&serde_json::to_string(&record).unwrap_or_default());
        text.push('\n');
    }
    ([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response()
}

fn lines(body: &str) -> impl Iterator<Item = &str> {
    body.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn done(text: &str) -> Response {
    text.to_owned().into_response()
}

fn wrong(line: &str, cause: impl std::fmt::Display) -> Response {
    let text = format!("{line}: {cause}\n");
    (StatusCode::BAD_REQUEST, text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_request_to_a_loopback_name_that_no_page_sent_gets_through() {
        let head = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                let name = axum::http::HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            refuse(&pairs.collect()).is_none()
        };
        for host in ["127.0.0.1:9480", "127.8.0.1", "[::1]:1", "localhost:9480"] {
            assert!(head(&[("host", host)]), "{host}");
        }
        for host in ["example.org", "127.0.0.1.example.org", "192.0.2.1:9480", ""] {
            assert!(!head(&[("host", host)]), "{host}");
        }
        assert!(!head(&[]));
        for page in [
            ("origin", "http://127.0.0.1:9480"),
            ("sec-fetch-site", "none"),
        ] {
            assert!(!head(&[("host", "127.0.0.1:9480"), page]));
        }
    }
}
