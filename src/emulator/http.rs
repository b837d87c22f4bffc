//! The HTTP front: reads a request within its bounds, hands it to the world under one lock, sends what comes back.
//!
//! It decides nothing about the service. A request is recorded, written to the history file and announced before its
//! reply leaves, so whoever has the reply finds the record.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::form::{Fields, STORAGE_PATH};
use super::gateway::Call;
use super::reply::{Refusal, Reply};
use super::storage::Post;
use super::world::{Now, World};
use crate::routine::{Code, MAX_CODE_BYTES};

/// The longest body of an API call, in bytes. A longer one is refused.
const MAX_CALL_BODY: usize = 1 << 20;

/// The most that may stand before the file of a form, in bytes, as object storage documents.
const MAX_BEFORE_FILE: u64 = 8 << 20;

/// The longest form, in bytes, with some room for a file that is too large and gets its own error. A longer one is
/// refused unread.
const MAX_FORM: u64 = MAX_CODE_BYTES + MAX_BEFORE_FILE + (1 << 20);

/// The longest name of a field of a form, in bytes, as object storage documents.
const MAX_FIELD_NAME: usize = 8 << 10;

/// The longest value of a field of a form, in bytes, as object storage documents.
const MAX_FIELD_VALUE: usize = 2 << 20;

/// What the requests and the [`super::Emulator`] share.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    started: Instant,
    /// Counts the changes of the world, so that whoever waits for one looks again.
    pub(super) changed: watch::Sender<u64>,
    /// Ends the reading of bodies that would not end by themselves.
    pub(super) stop: CancellationToken,
}

struct Inner {
    world: World,
    history_file: Option<File>,
}

/// The routes of the service.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(api).post(api))
        .route(STORAGE_PATH, post(object))
        // Each handler has its own bound, and the framework's would be lower.
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
}

impl Shared {
    pub(super) fn new(world: World, history_file: Option<File>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                world,
                history_file,
            }),
            started: Instant::now(),
            changed: watch::Sender::new(0),
            stop: CancellationToken::new(),
        }
    }

    /// Runs one step on the world and wakes whoever waits for a change.
    pub(super) fn with_world<T>(&self, step: impl FnOnce(&mut World) -> T) -> T {
        let result = step(&mut self.lock().world);
        self.announce();
        result
    }

    /// Looks at the world without changing it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.lock().world)
    }

    fn announce(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Handles one request: the time is taken under the lock, so that it never steps back from one to the next.
    fn handle(&self, step: impl FnOnce(&mut World, Now) -> Reply) -> Response {
        let reply = {
            let mut inner = self.lock();
            let now = Now {
                wall: Timestamp::now(),
                elapsed: self.started.elapsed(),
            };
            let reply = step(&mut inner.world, now);
            inner.write_record();
            reply
        };
        self.announce();
        respond(reply)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, body: Body, limit: usize) -> Option<Bytes> {
        self.stop
            .run_until_cancelled(to_bytes(body, limit))
            .await?
            .ok()
    }
}

impl Inner {
    /// Writes the newest record as one line. A file that cannot be written is given up: a history with gaps would
    /// prove things that are not so.
    fn write_record(&mut self) {
        let (Some(file), Some(record)) = (
            &mut self.history_file,
            self.world.history().iter().next_back(),
        ) else {
            return;
        };
        let line = serde_json::to_string(record)
            .map(|line| line + "\n")
            .map_err(Into::into);
        if let Err(error) = line.and_then(|line| file.write_all(line.as_bytes())) {
            tracing::error!(%error, "the history file cannot be written and ends here");
            self.history_file = None;
        }
    }
}

async fn api(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let arrived = shared.started.elapsed();
    let (parts, body) = request.into_parts();
    let form = if is_form(&parts.headers) {
        shared.read(body, MAX_CALL_BODY).await
    } else {
        Some(Bytes::new())
    };
    let call = match form {
        Some(form) => Ok(Call::new(
            parts.method.as_str(),
            parts.uri.query().unwrap_or_default(),
            &String::from_utf8_lossy(&form),
        )),
        None => {
            let message = format!("the body broke off or has more than {MAX_CALL_BODY} bytes");
            Err(Refusal::new(400, "InvalidParameter", message))
        }
    };
    shared.handle(|world, now| world.call(call.as_ref().map_err(Clone::clone), arrived, now))
}

async fn object(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let arrived = shared.started.elapsed();
    let post = read_post(&shared, request).await;
    shared.handle(|world, now| world.post(post.as_ref().map_err(Clone::clone), arrived, now))
}

/// The whole body is read before any of it is looked at, since the form's life is judged when it is complete.
async fn read_post(shared: &Shared, request: Request) -> Result<Post, Refusal> {
    let (parts, body) = request.into_parts();
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let length: Option<u64> = length.and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(length) = length else {
        let message = "a form post must tell its Content-Length";
        return Err(Refusal::new(411, "MissingContentLength", message));
    };
    if length > MAX_FORM {
        let message = format!("the form has {length} bytes, more than {MAX_FORM}");
        return Err(Refusal::new(400, "EntityTooLarge", message));
    }
    let limit = usize::try_from(length).unwrap_or(usize::MAX);
    let Some(bytes) = shared.read(body, limit).await else {
        return Err(Refusal::new(
            400,
            "IncompleteBody",
            "the body ended before its Content-Length",
        ));
    };
    let request = Request::from_parts(parts, Body::from(bytes));
    let Ok(form) = Multipart::from_request(request, &()).await else {
        let message = "the body is not multipart/form-data with a boundary";
        return Err(Refusal::new(400, "RequestIsNotMultiPartContent", message));
    };
    read_fields(form).await
}

/// Reads up to the file, which must be last: what follows it is not looked at.
async fn read_fields(mut form: Multipart) -> Result<Post, Refusal> {
    let malformed = |cause: &str| {
        let message = format!("the body is not well-formed multipart/form-data: {cause}");
        Refusal::new(400, "MalformedPOSTRequest", message)
    };
    let mut fields = Vec::new();
    let mut before_file = 0;
    while let Some(field) = form
        .next_field()
        .await
        .map_err(|e| malformed(&e.body_text()))?
    {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(|e| malformed(&e.body_text()))?;
        if name == "file" {
            return Ok(Post {
                fields: Fields(fields),
                file: Some(Code::new(bytes.to_vec())),
            });
        }
        if name.len() > MAX_FIELD_NAME || bytes.len() > MAX_FIELD_VALUE {
            return Err(Refusal::new(
                400,
                "FieldItemTooLong",
                "a field of the form is too long",
            ));
        }
        before_file += (name.len() + bytes.len()) as u64;
        if before_file > MAX_BEFORE_FILE {
            let message =
                format!("the fields before the file have more than {MAX_BEFORE_FILE} bytes");
            return Err(Refusal::new(
                400,
                "MaxPOSTPreDataLengthExceededError",
                message,
            ));
        }
        let value =
            String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a field is not UTF-8"))?;
        fields.push((name, value));
    }
    Ok(Post {
        fields: Fields(fields),
        file: None,
    })
}

fn respond(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        ("content-type", reply.content_type.to_owned()),
        ("x-oss-request-id", reply.request_id.clone()),
        ("x-acs-request-id", reply.request_id),
    ];
    (status, headers, reply.body).into_response()
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}
