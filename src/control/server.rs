//! The server behind the control socket. It turns requests into questions to the loop, and answers into JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::line::{Asked, Listener, MAX_REQUEST};
use super::place::{self, PlaceError, Socket};
use super::status::{Budget, Status};
use crate::report::question::{Order, Question};
use crate::report::standing::Overview;

/// How long the loop is waited for that answers at once unless it has not begun or hangs.
const LOOP_PATIENCE: Duration = Duration::from_secs(3);

/// How long answers that are on their way are waited for at the end.
const STOP_GRACE: Duration = Duration::from_millis(200);

/// What an answer says besides what the loop knows.
pub struct About {
    /// The version of er-dev.
    pub version: &'static str,
    /// Which er-dev this is.
    pub instance: String,
    /// The host of the service.
    pub endpoint: String,
    /// The configuration, canonical.
    pub config: String,
    /// Whether nothing is changed on the service.
    pub dry_run: bool,
    /// When the program started.
    pub begun: Instant,
    /// How the budget of requests stands.
    pub budget: Box<dyn Fn() -> Budget + Send + Sync>,
    /// How changes of each routine's entry are noticed, and why not by events alone.
    pub noticing: Box<dyn Fn() -> Noticing + Send + Sync>,
}

/// By what changes of each routine's entry are noticed, and why not by events alone.
pub type Noticing = BTreeMap<String, (String, Option<String>)>;

/// A control socket that is being served. Dropping it removes the socket and cuts everybody off.
#[derive(Debug)]
pub struct Control {
    socket: Socket,
    server: JoinHandle<std::io::Result<()>>,
    stop: DropGuard,
}

struct Shared {
    about: About,
    questions: mpsc::Sender<Question>,
}

impl Control {
    /// Makes the socket in the directory of control sockets, and serves it. What others left there is removed.
    pub async fn start(
        dir: &Path,
        about: About,
        questions: mpsc::Sender<Question>,
    ) -> Result<Self, PlaceError> {
        place::prepare(dir)?;
        place::living(dir).await?;
        let (socket, listener) = Socket::bind(dir, &about.instance, std::process::id()).await?;
        let listener = Listener::new(listener, socket.path().to_owned());
        tracing::info!(socket = %socket.path().display(), "the control socket is there");
        let shared = Arc::new(Shared { about, questions });
        let app = Router::new()
            .route("/status", get(status))
            .route("/sync", post(sync))
            .route(
                "/flush",
                post(|State(shared): State<Arc<Shared>>| order(shared, Order::Flush)),
            )
            .route(
                "/pause",
                post(|State(shared): State<Arc<Shared>>| order(shared, Order::Pause)),
            )
            .route(
                "/resume",
                post(|State(shared): State<Arc<Shared>>| order(shared, Order::Continue)),
            )
            .fallback(unknown)
            .method_not_allowed_fallback(unknown)
            .layer(middleware::from_fn(one_request))
            .with_state(shared);
        let stop = CancellationToken::new();
        let app = app.into_make_service_with_connect_info::<Asked>();
        let serving =
            axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
        Ok(Self {
            socket,
            server: tokio::spawn(serving.into_future()),
            stop: stop.drop_guard(),
        })
    }

    /// Removes the socket and lets answers on their way get through.
    pub async fn stop(self) {
        let Self {
            socket,
            mut server,
            stop,
        } = self;
        socket.remove();
        drop(stop);
        let ended = match tokio::time::timeout(STOP_GRACE, &mut server).await {
            Ok(ended) => ended,
            Err(_) => {
                server.abort();
                server.await
            }
        };
        match ended {
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            ended => tracing::debug!(?ended, "the control socket is closed"),
        }
        // It may have been made again in the very moment it was removed.
        drop(socket);
    }
}

/// One request a connection: a client that keeps its connection would keep its place.
async fn one_request(
    ConnectInfo(asked): ConnectInfo<Asked>,
    request: Request,
    next: Next,
) -> Response {
    asked.note();
    let mut response = if request.body().size_hint().lower() > MAX_REQUEST as u64 {
        let error = format!("a request may have {MAX_REQUEST} bytes");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        (status, axum::Json(json!({"error": error}))).into_response()
    } else {
        next.run(request).await
    };
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    at_once(&shared, Question::Status).await
}

async fn order(shared: Arc<Shared>, order: Order) -> Response {
    at_once(&shared, |answer| Question::Order(order, answer)).await
}

/// Asks something that the loop answers without waiting for anything.
async fn at_once(
    shared: &Shared,
    question: impl FnOnce(oneshot::Sender<Overview>) -> Question,
) -> Response {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        let sent = shared.questions.send(question(answer)).await;
        sent.is_ok().then_some(answered.await.ok()).flatten()
    };
    match tokio::time::timeout(LOOP_PATIENCE, asked).await {
        Ok(Some(overview)) => shared.tell(overview),
        Ok(None) => ended(),
        Err(_) => refuse(
            "this er-dev does not answer in time: it has not begun to watch yet, or it hangs",
        ),
    }
}

async fn sync(State(shared): State<Arc<Shared>>) -> Response {
    let (answer, answered) = oneshot::channel();
    if shared.questions.send(Question::Sync(answer)).await.is_err() {
        return ended();
    }
    match answered.await {
        Ok(Ok(overview)) => shared.tell(overview),
        Ok(Err(refusal)) => refuse(&refusal.to_string()),
        Err(_) => ended(),
    }
}

async fn unknown() -> Response {
    let text = "there are GET /status and POST /sync, /flush, /pause and /resume";
    (StatusCode::NOT_FOUND, axum::Json(json!({"error": text}))).into_response()
}

impl Shared {
    fn tell(&self, overview: Overview) -> Response {
        let about = &self.about;
        let (mut noticing, mut routines) = ((about.noticing)(), overview.routines);
        for routine in &mut routines {
            let (by, why) = noticing.remove(&routine.routine).unzip();
            (routine.backend, routine.backend_why) = (by, why.flatten());
        }
        let status = Status {
            v: 1,
            pid: std::process::id(),
            version: about.version.into(),
            instance: about.instance.clone(),
            endpoint: about.endpoint.clone(),
            config: about.config.clone(),
            dry_run: about.dry_run,
            up_ms: u64::try_from(about.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            budget: (about.budget)(),
            events_lost: overview.events_lost,
            conditions: overview.conditions,
            routines,
        };
        axum::Json(status).into_response()
    }
}

fn ended() -> Response {
    refuse("this er-dev ended before it could answer")
}

fn refuse(text: &str) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    (status, axum::Json(json!({"error": text}))).into_response()
}
