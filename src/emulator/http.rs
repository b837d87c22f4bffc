//! The HTTP front: reads a request within its bounds, and keeps the world that all requests share under one lock.
//!
//! It decides nothing about the service. What goes back is in `answer`, and how it goes back is in `wire`.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest as _, Multipart, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use axum::routing::{get, post};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::acs3::Claim;
use super::action::Action;
use super::fault::{Fault, FaultError, Faults, Hit};
use super::form::{Fields, STORAGE_PATH};
use super::gateway::Call;
use super::history::POST_OBJECT;
use super::reply::{Refusal, Reply};
use super::storage::Post;
use super::wire::Line;
use super::world::{Now, Settings, Visit, World};
use super::{answer, control};
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
    /// The requests that are carried out late.
    late: Mutex<JoinSet<()>>,
    started: Instant,
    /// Counts the changes of the world, so that whoever waits for one looks again.
    pub(super) changed: watch::Sender<u64>,
    /// Ends the reading of bodies that would not end by themselves.
    pub(super) stop: CancellationToken,
}

struct Inner {
    world: World,
    faults: Faults,
    history_file: Option<File>,
    /// The place of the first record that is not in the file.
    written: u64,
}

/// The routes of the service, and those of the emulator's control.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(api).post(api))
        .route(STORAGE_PATH, post(object))
        // Each handler has its own bound, and the framework's would be lower.
        .layer(DefaultBodyLimit::disable())
        .nest("/control", control::router())
        .with_state(shared)
}

impl Shared {
    pub(super) fn new(world: World, history_file: Option<File>) -> Self {
        let faults = Faults::new(world.settings().seed);
        Self {
            inner: Mutex::new(Inner {
                world,
                faults,
                history_file,
                written: 0,
            }),
            late: Mutex::new(JoinSet::new()),
            started: Instant::now(),
            changed: watch::Sender::new(0),
            stop: CancellationToken::new(),
        }
    }

    /// Runs one step on the world as it is now, and wakes whoever waits for a change. The time is taken under the
    /// lock, so that it never steps back from one step to the next.
    pub(super) fn step<T>(&self, step: impl FnOnce(&mut World, Now) -> T) -> T {
        let result = {
            let mut inner = self.lock();
            let clock = inner.world.settings().clock;
            let wall = Timestamp::now();
            let now = Now {
                wall: wall.checked_add(clock).unwrap_or(wall),
                elapsed: self.started.elapsed(),
            };
            let result = step(&mut inner.world, now);
            inner.write_records();
            result
        };
        self.announce();
        result
    }

    /// Runs one step of somebody else on the world.
    pub(super) fn with_world<T>(&self, step: impl FnOnce(&mut World) -> T) -> T {
        self.step(|world, now| {
            world.now = now;
            step(world)
        })
    }

    /// Looks at the world without changing it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.lock().world)
    }

    /// Changes how the service behaves.
    pub(super) fn configure(&self, settings: Settings) {
        self.lock().faults.seed(settings.seed);
        self.with_world(|world| world.configure(settings));
    }

    /// Sets faults, all of them or none.
    pub(super) fn add_faults(&self, faults: Vec<Fault>) -> Result<(), FaultError> {
        self.lock().faults.extend(faults)
    }

    pub(super) fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    pub(super) fn faults<T>(&self, look: impl FnOnce(&Faults) -> T) -> T {
        look(&self.lock().faults)
    }

    /// Has the service answer a request, and tells the time of its clock.
    pub(super) fn serve(
        &self,
        request: &answer::Request,
        arrived: Duration,
        hit: Option<&Hit>,
    ) -> (Reply, Timestamp) {
        self.step(|world, now| {
            let visit = Visit { arrived, now, hit };
            (request.serve(world, &visit), now.wall)
        })
    }

    /// The same later, whether or not the client is still there. A stop comes before it.
    pub(super) fn serve_late(
        self: &Arc<Self>,
        request: answer::Request,
        arrived: Duration,
        hit: Hit,
        late: Duration,
    ) {
        let shared = Arc::clone(self);
        let mut tasks = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            pass_on_panic(ended);
        }
        tasks.spawn(async move {
            let wait = tokio::time::sleep(late);
            if shared.stop.run_until_cancelled(wait).await.is_some() {
                shared.serve(&request, arrived, Some(&hit));
            }
        });
    }

    /// Waits for what is served late; after a stop that is at once.
    pub(super) async fn end_late(&self) {
        let mut tasks =
            std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(ended) = tasks.join_next().await {
            pass_on_panic(ended);
        }
    }

    fn choose(&self, op: &str) -> Option<Hit> {
        self.lock().faults.choose(op)
    }

    fn announce(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
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

fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

impl Inner {
    /// Writes the records that are new, one line each. A file that cannot be written is given up: a history with gaps
    /// would prove things that are not so.
    fn write_records(&mut self) {
        let Some(file) = &mut self.history_file else {
            return;
        };
        let mut text = String::new();
        for record in self.world.history().since(self.written) {
            text.push_str(&serde_json::to_string(record).unwrap_or_default());
            text.push('\n');
            self.written = record.seq + 1;
        }
        if let Err(error) = file.write_all(text.as_bytes()) {
            tracing::error!(%error, "the history file cannot be written and ends here");
            self.history_file = None;
        }
    }
}

async fn api(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
) -> Response {
    let arrived = shared.started.elapsed();
    let (parts, body) = request.into_parts();
    let call = match shared.read(body, MAX_CALL_BODY).await {
        Some(body) => Ok(read_call(&parts, &body)),
        None => {
            let message = format!("the body broke off or has more than {MAX_CALL_BODY} bytes");
            Err(Refusal::new(400, "InvalidParameter", message))
        }
    };
    let request = answer::Request::Call(call);
    let hit = shared.choose(request.op());
    answer::answer(&shared, &line, arrived, request, hit).await
}

async fn object(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
) -> Response {
    let arrived = shared.started.elapsed();
    let hit = shared.choose(POST_OBJECT);
    let post = match hit.as_ref().map(|hit| &hit.action) {
        Some(Action::RstMidBody(bytes)) => {
            // Reading ends with the piece that goes beyond.
            let bytes = usize::try_from(*bytes).unwrap_or(usize::MAX);
            let _ = shared.read(request.into_body(), bytes).await;
            Err(incomplete())
        }
        _ => read_post(&shared, request).await,
    };
    answer::answer(&shared, &line, arrived, answer::Request::Post(post), hit).await
}

fn incomplete() -> Refusal {
    Refusal::new(
        400,
        "IncompleteBody",
        "the body ended before its Content-Length",
    )
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
        return Err(incomplete());
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

fn read_call(parts: &Parts, body: &[u8]) -> Call {
    let query = parts.uri.query().unwrap_or_default();
    let form = if is_form(&parts.headers) {
        String::from_utf8_lossy(body)
    } else {
        Cow::default()
    };
    let call = Call::new(parts.method.as_str(), query, &form);
    let headers = parts.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        (name.to_string(), value.into_owned())
    });
    match Claim::read(query, headers, body) {
        Some(claim) => call.claiming(claim),
        None => call,
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}
