//! From a request to what goes back over its connection, faults included.
//!
//! Which request meets which fault is chosen in `fault`; what the service does and says is in `world`. A request is
//! recorded, written to the history file and announced before its answer leaves, so whoever has the answer finds the
//! record.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::{SignedDuration, Timestamp};
use rustix::process::Pid;

use super::action::{Action, HUGE_BODY, JSON_DEPTH, Moment};
use super::fault::{Chance, Hit};
use super::gateway::Call;
use super::history::{Decision, POST_OBJECT, Record};
use super::http::Shared;
use super::operations;
use super::reply::{self, Format, Refusal, Reply};
use super::storage::{self, Post};
use super::wire::{Line, Script, kill};
use super::world::{Visit, World};

/// The pause between two bytes of a dripping answer.
const DRIP: Duration = Duration::from_millis(200);

/// The blanks that a dripping body begins with: half an hour of them.
const DRIP_BLANKS: usize = 9_000;

/// How long after a kill a request is carried out that comes late.
const AFTER_A_KILL: Duration = Duration::from_millis(300);

/// How far the clock of a captive portal is off; little enough that a client would believe the service that much.
const PORTAL_SKEW: SignedDuration = SignedDuration::from_hours(-3);

/// The length of a body of random bytes.
const GARBAGE_BYTES: usize = 512;

/// The first bytes of something compressed, and no more that would be.
const NOT_REALLY_GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\xffer-dev";

/// One request as it came; one that could not be read is its refusal.
pub(super) enum Request {
    Call(Result<Call, Refusal>),
    Post(Result<Post, Refusal>),
}

impl Request {
    pub(super) fn op(&self) -> &'static str {
        match self {
            Self::Call(call) => operations::name_of(call.as_ref().ok()),
            Self::Post(_) => POST_OBJECT,
        }
    }

    /// Has the service answer.
    pub(super) fn serve(&self, world: &mut World, visit: &Visit<'_>) -> Reply {
        match self {
            Self::Call(call) => world.call(call.as_ref().map_err(Clone::clone), visit),
            Self::Post(post) => world.post(post.as_ref().map_err(Clone::clone), visit),
        }
    }

    fn record(&self, visit: &Visit<'_>) -> Record {
        match self {
            Self::Call(call) => operations::record(call.as_ref().ok(), visit),
            Self::Post(post) => storage::record(post.as_ref().ok(), visit),
        }
    }

    /// An error in the words of the part of the service that was called.
    fn error(&self, world: &mut World, refusal: Refusal) -> Reply {
        let id = world.next_request_id();
        match self {
            Self::Call(call) => {
                let format = call.as_ref().map_or(Format::Xml, Call::format);
                reply::gateway(Err(refusal), self.op(), format, world.host(), id)
            }
            Self::Post(_) => reply::storage(Err(refusal), world.host(), id),
        }
    }
}

/// Answers a request.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    line: &Line,
    arrived: Duration,
    request: Request,
    hit: Option<Hit>,
) -> Response {
    let Some(hit) = hit else {
        let (reply, wall) = shared.serve(&request, arrived, None);
        return respond(reply, wall);
    };
    match &hit.action {
        Action::ProcessLate(millis) => {
            let late = Duration::from_millis(*millis);
            shared.serve_late(request, arrived, hit, late);
            shared.stop.cancelled().await;
            return end(line, Script::silence());
        }
        Action::Kill {
            pid,
            moment: Moment::Late,
        } => {
            Pid::from_raw(*pid).into_iter().for_each(kill);
            shared.serve_late(request, arrived, hit, AFTER_A_KILL);
            return end(line, Script::silence());
        }
        Action::Kill { pid, moment } if *moment != Moment::After => {
            Pid::from_raw(*pid).into_iter().for_each(kill);
        }
        _ => {}
    }
    if !hit.action.processes() {
        let (reply, wall) = shared.step(|world, now| {
            let visit = Visit {
                arrived,
                now,
                hit: Some(&hit),
            };
            (pass_over(world, &request, &visit), now.wall)
        });
        return match reply {
            Some(reply) => unserved(&hit.action, reply, wall),
            None if matches!(hit.action, Action::RstMidBody(_)) => end(line, Script::Reset),
            None => end(line, Script::silence()),
        };
    }
    let (reply, wall) = shared.serve(&request, arrived, Some(&hit));
    if let Action::Delay(millis) = hit.action {
        let delay = tokio::time::sleep(Duration::from_millis(millis));
        let _ = shared.stop.run_until_cancelled(delay).await;
    }
    served(shared, line, &hit, request.op(), reply, wall)
}

/// Records a request that is not carried out, and gives the answer to it if there is one.
fn pass_over(world: &mut World, request: &Request, visit: &Visit<'_>) -> Option<Reply> {
    let action = &visit.hit?.action;
    let (reply, code) = instead(world, request, action).unzip();
    world.keep(Record {
        decision: Decision::Fault,
        status: reply.as_ref().map_or(0, |reply| reply.status),
        code: code.flatten(),
        ..request.record(visit)
    });
    reply
}

/// What is answered in place of the service, and the error code in it.
fn instead(
    world: &mut World,
    request: &Request,
    action: &Action,
) -> Option<(Reply, Option<String>)> {
    let is_post = matches!(request, Request::Post(_));
    let page = |status, body: &str| Reply {
        status,
        content_type: "text/html",
        request_id: String::new(),
        body: body.to_owned(),
    };
    let mut error = |refusal: Refusal| {
        let code = refusal.code.to_string();
        (request.error(world, refusal), Some(code))
    };
    Some(match action {
        Action::Status(203) if is_post => error(callback_failed()),
        Action::Status(status @ (204 | 205 | 304)) => (page(*status, ""), None),
        Action::Status(status) => {
            let body = format!(
                "<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\n"
            );
            (page(*status, &body), None)
        }
        Action::Code {
            code,
            message,
            status,
        } => {
            let status = status.unwrap_or(if is_post { 403 } else { 400 });
            error(Refusal::new(status, code.clone(), message.as_str()))
        }
        Action::Answer(body) => {
            let reply = Reply {
                content_type: "application/json;charset=utf-8",
                ..page(200, body)
            };
            (reply, None)
        }
        Action::Redirect { status, .. } => (page(*status, ""), None),
        Action::Portal => {
            let body = "<html><head><title>Welcome</title></head><body><form action=\"/login\">\
                        Please sign in to use this network.</form></body></html>\n";
            (page(200, body), None)
        }
        Action::Unregistered => {
            let id = world.next_request_id();
            let registered = Ok(Some(storage::registered()));
            (reply::storage(registered, world.host(), id), None)
        }
        _ => return None,
    })
}

fn unserved(action: &Action, reply: Reply, wall: Timestamp) -> Response {
    match action {
        Action::Portal => respond(reply, shifted(wall, PORTAL_SKEW)),
        Action::Redirect { url, .. } => with(respond(reply, wall), header::LOCATION, url),
        _ => respond(reply, wall),
    }
}

/// The answer to a request that was carried out, as the fault spoils it.
fn served(
    shared: &Shared,
    line: &Line,
    hit: &Hit,
    op: &str,
    mut reply: Reply,
    wall: Timestamp,
) -> Response {
    match &hit.action {
        Action::DropAfter => end(line, Script::silence()),
        Action::Kill { pid, moment } => {
            let pid = Pid::from_raw(*pid).filter(|_| *moment == Moment::After);
            let Some(pid) = pid else {
                return end(line, Script::silence());
            };
            line.play(Script::Kill(pid));
            with(respond(reply, wall), header::CONNECTION, "close")
        }
        Action::CallbackLost => {
            let host = shared.look(|world| world.host().to_owned());
            let reply = reply::storage(Err(callback_failed()), &host, reply.request_id);
            respond(reply, wall)
        }
        Action::Truncate => {
            let half = Bytes::from(reply.body[..half(&reply.body)].to_owned());
            let pieces = [head(&reply, reply.body.len(), wall), half];
            end(line, Script::say(pieces, None))
        }
        Action::Drip => {
            let body = " ".repeat(DRIP_BLANKS) + &reply.body;
            let head = head(&reply, body.len(), wall);
            let bytes = body.into_bytes().into_iter();
            let bytes = bytes.map(|byte| Bytes::from(vec![byte]));
            end(
                line,
                Script::say([head].into_iter().chain(bytes), Some(DRIP)),
            )
        }
        Action::Huge => {
            let head = head(&reply, HUGE_BODY, wall);
            let piece = Bytes::from(vec![b' '; 1 << 16]);
            let pieces = std::iter::repeat_n(piece, HUGE_BODY >> 16);
            end(line, Script::say([head].into_iter().chain(pieces), None))
        }
        Action::Garbage => {
            let mut chance = Chance(hit.draw);
            let numbers = std::iter::repeat_with(|| chance.next().to_le_bytes());
            let bytes: Vec<u8> = numbers.flatten().take(GARBAGE_BYTES).collect();
            reply.status = 200;
            with_body(respond(reply, wall), bytes)
        }
        Action::DeepJson => {
            reply.status = 200;
            reply.body = "[".repeat(JSON_DEPTH) + &"]".repeat(JSON_DEPTH);
            respond(reply, wall)
        }
        Action::GzipBomb => {
            let response = with_body(respond(reply, wall), NOT_REALLY_GZIP.to_vec());
            with(response, header::CONTENT_ENCODING, "gzip")
        }
        Action::XmlForJson => respond(reply.in_xml(op), wall),
        Action::WrongContentType => {
            reply.content_type = "text/html";
            respond(reply, wall)
        }
        Action::DateSkew(seconds) => {
            respond(reply, shifted(wall, SignedDuration::from_secs(*seconds)))
        }
        _ => respond(reply, wall),
    }
}

/// An answer as it is sent. The date is the service's, which may not be the machine's.
fn respond(reply: Reply, date: Timestamp) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, reply.body).into_response();
    response = with(response, header::CONTENT_TYPE, reply.content_type);
    response = with(response, header::DATE, &http_date(date));
    if !reply.request_id.is_empty() {
        for name in ["x-oss-request-id", "x-acs-request-id"] {
            response = with(response, HeaderName::from_static(name), &reply.request_id);
        }
    }
    response
}

fn with(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

fn with_body(mut response: Response, body: Vec<u8>) -> Response {
    *response.body_mut() = Body::from(body);
    response
}

/// Has the connection end in this way. What is returned here is never sent.
fn end(line: &Line, script: Script) -> Response {
    line.play(script);
    Response::default()
}

/// The head of an answer that the server does not write itself.
fn head(reply: &Reply, length: usize, date: Timestamp) -> Bytes {
    let Reply {
        status,
        content_type,
        request_id,
        ..
    } = reply;
    let date = http_date(date);
    Bytes::from(format!(
        "HTTP/1.1 {status} OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
         x-acs-request-id: {request_id}\r\nx-oss-request-id: {request_id}\r\ndate: {date}\r\n\
         connection: close\r\n\r\n"
    ))
}

fn callback_failed() -> Refusal {
    Refusal::new(203, "CallbackFailed", "the callback was not answered")
}

fn half(text: &str) -> usize {
    text.floor_char_boundary(text.len() / 2)
}

fn shifted(time: Timestamp, by: SignedDuration) -> Timestamp {
    let end = if by.is_negative() {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    time.checked_add(by).unwrap_or(end)
}

fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
