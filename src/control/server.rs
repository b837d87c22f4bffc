//! The server behind the control socket and the page. It turns requests into questions to the loop, and answers into
//! JSON.

use std::collections::BTreeMap;
use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::feed::{Feed, Listening, MAX_LISTENERS};
use super::line::{Asked, Door, Listener, MAX_REQUEST};
use super::metrics::{self, Facts};
use super::place::{self, PlaceError, Socket};
use super::status::{Budget, Status};
use super::{guard, page};
use crate::clock;
use crate::report::question::{Order, Question};
use crate::report::standing::{Overview, Unusual};
use crate::traffic::Traffic;

/// How long the loop is waited for that answers at once unless it has not begun or hangs.
const LOOP_PATIENCE: Duration = Duration::from_secs(3);

/// How long answers that are on their way are waited for at the end.
const STOP_GRACE: Duration = Duration::from_millis(200);

/// The name of the last event that somebody who comes back has seen.
const LAST_EVENT: &str = "last-event-id";

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
    /// The same by the clock on the wall.
    pub started: Timestamp,
    /// How the budget of requests stands.
    pub budget: Box<dyn Fn() -> Budget + Send + Sync>,
    /// How changes of each routine's entry are noticed, and why not by events alone.
    pub noticing: Box<dyn Fn() -> Noticing + Send + Sync>,
    /// What was asked of the service.
    pub traffic: Box<dyn Fn() -> Traffic + Send + Sync>,
    /// What has been told.
    pub feed: Arc<Feed>,
}

/// By what changes of each routine's entry are noticed, and why not by events alone.
pub type Noticing = BTreeMap<String, (String, Option<String>)>;

/// What is served, wherever that is.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

/// A control socket or an address that is being served. Dropping it removes the socket and cuts everybody off.
#[derive(Debug)]
pub struct Control {
    socket: Option<Socket>,
    server: JoinHandle<std::io::Result<()>>,
    stop: DropGuard,
}

struct Shared {
    about: About,
    questions: mpsc::Sender<Question>,
}

impl Service {
    /// What answers by these questions.
    pub fn new(about: About, questions: mpsc::Sender<Question>) -> Self {
        Self {
            shared: Arc::new(Shared { about, questions }),
            stop: CancellationToken::new(),
        }
    }

    /// Makes the socket in the directory of control sockets, and serves there. What others left there is removed.
    pub async fn at_socket(&self, dir: &Path) -> Result<Control, PlaceError> {
        place::prepare(dir)?;
        place::living(dir).await?;
        let instance = &self.shared.about.instance;
        let (socket, listener) = Socket::bind(dir, instance, std::process::id()).await?;
        let path = socket.path().to_owned();
        tracing::info!(socket = %socket.path().display(), "the control socket is there");
        Ok(self.serve(Door::socket(listener, path), self.routes(), Some(socket)))
    }

    /// Serves at an address of this machine, to whoever passes the guard. Port 0 takes an unused one, which is returned.
    pub async fn at_address(
        &self,
        address: SocketAddr,
    ) -> Result<(Control, SocketAddr), std::io::Error> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shown: Arc<str> = address.to_string().into();
        let routes = self
            .routes()
            .layer(middleware::from_fn_with_state(shown, guarded));
        Ok((self.serve(Door::Address(listener), routes, None), address))
    }

    fn serve(&self, door: Door, routes: Router, socket: Option<Socket>) -> Control {
        let stop = self.stop.child_token();
        // The outermost layer, so that it applies to what is refused as well.
        let app = routes.layer(middleware::from_fn(one_request));
        let app = app.into_make_service_with_connect_info::<Asked>();
        let serving = axum::serve(Listener::new(door), app)
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        Control {
            socket,
            server: tokio::spawn(serving.into_future()),
            stop: stop.drop_guard(),
        }
    }

    fn routes(&self) -> Router {
        Router::new()
            .route("/", get(page::page))
            .route("/status", get(status))
            .route("/versions", get(versions))
            .route("/traffic", get(traffic))
            .route("/events", get(events))
            .route("/healthz", get(health))
            .route("/metrics", get(metrics))
            .route("/sync", post(sync))
            .route("/flush", order(Order::Flush))
            .route("/pause", order(Order::Pause))
            .route("/resume", order(Order::Continue))
            .fallback(unknown)
            .method_not_allowed_fallback(unknown)
            .with_state(self.clone())
    }

    /// Ends what has no end, so that nobody who listens is waited for.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Control {
    /// Removes the socket and lets answers on their way get through.
    pub async fn stop(self) {
        let Self {
            socket,
            mut server,
            stop,
        } = self;
        if let Some(socket) = &socket {
            socket.remove();
        }
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
            ended => tracing::debug!(?ended, "the control is closed"),
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
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Refuses what a page from elsewhere may have made a browser ask.
async fn guarded(State(address): State<Arc<str>>, request: Request, next: Next) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    match guard::refusal(&address, method, uri, headers) {
        Some(why) => (StatusCode::FORBIDDEN, axum::Json(json!({"error": why}))).into_response(),
        None => next.run(request).await,
    }
}

async fn status(State(service): State<Service>) -> Response {
    match service.shared.at_once(Question::Status).await {
        Ok(overview) => service.shared.tell(overview),
        Err(why) => refuse(why),
    }
}

async fn versions(State(service): State<Service>) -> Response {
    match service.shared.at_once(Question::Versions).await {
        Ok(routines) => axum::Json(json!({"v": 1, "routines": routines})).into_response(),
        Err(why) => refuse(why),
    }
}

async fn traffic(State(service): State<Service>) -> Response {
    let seconds = (service.shared.about.traffic)().seconds(clock::now());
    axum::Json(json!({"v": 1, "seconds": seconds})).into_response()
}

async fn events(
    ConnectInfo(asked): ConnectInfo<Asked>,
    State(service): State<Service>,
    headers: HeaderMap,
) -> Response {
    let last = headers.get(LAST_EVENT).and_then(|last| last.to_str().ok());
    let Some(listening) = service.shared.about.feed.listen(last) else {
        return refuse(&format!(
            "{MAX_LISTENERS} listen to events already; try again when one of them has gone"
        ));
    };
    asked.note_endless();
    let next = |(mut listening, stop): (Listening, CancellationToken)| async move {
        let text = stop.run_until_cancelled(listening.next()).await??;
        Some((Ok::<_, std::convert::Infallible>(text), (listening, stop)))
    };
    let stream = futures_util::stream::unfold((listening, service.stop.clone()), next);
    let kind = HeaderValue::from_static("text/event-stream");
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(stream)).into_response()
}

/// Whether er-dev does what it is there for. A file that cannot go up is its writer's concern, and a pause was asked for.
async fn health(State(service): State<Service>) -> Response {
    let overview = match service.shared.at_once(Question::Status).await {
        Ok(overview) => overview,
        Err(why) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    };
    let mut conditions = overview.conditions.iter();
    match conditions.find(|it| it.condition != Unusual::Paused) {
        None => "ok\n".into_response(),
        Some(wrong) => {
            let why = format!("{}: {}\n", wrong.condition.word(), wrong.reason.words());
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
    }
}

async fn metrics(State(service): State<Service>) -> Response {
    let overview = match service.shared.at_once(Question::Status).await {
        Ok(overview) => overview,
        Err(why) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    };
    let about = &service.shared.about;
    let traffic = (about.traffic)();
    let seconds = traffic.seconds(clock::now());
    let facts = Facts {
        version: about.version,
        begun: about.started,
        budget: (about.budget)(),
        traffic: &traffic,
        last_second: seconds.iter().rev().nth(1).copied().unwrap_or(0),
        overview: &overview,
    };
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    let text = about.feed.counts().render(&facts);
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn order(order: Order) -> MethodRouter<Service> {
    post(async move |State(service): State<Service>| {
        let question = |answer| Question::Order(order, answer);
        match service.shared.at_once(question).await {
            Ok(overview) => service.shared.tell(overview),
            Err(why) => refuse(why),
        }
    })
}

async fn sync(State(service): State<Service>) -> Response {
    let (answer, answered) = oneshot::channel();
    let question = Question::Sync(answer);
    if service.shared.questions.send(question).await.is_err() {
        return refuse(ENDED);
    }
    match answered.await {
        Ok(Ok(overview)) => service.shared.tell(overview),
        Ok(Err(refusal)) => refuse(&refusal.to_string()),
        Err(_) => refuse(ENDED),
    }
}

async fn unknown() -> Response {
    let text = "there are GET /, /status, /versions, /traffic, /events, /healthz and /metrics, and POST /sync, /flush, /pause and /resume";
    (StatusCode::NOT_FOUND, axum::Json(json!({"error": text}))).into_response()
}

impl Shared {
    /// Asks something that the loop answers without waiting for anything.
    async fn at_once<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, &'static str> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let sent = self.questions.send(question(answer)).await;
            sent.is_ok().then_some(answered.await.ok()).flatten()
        };
        match tokio::time::timeout(LOOP_PATIENCE, asked).await {
            Ok(Some(told)) => Ok(told),
            Ok(None) => Err(ENDED),
            Err(_) => Err(
                "this er-dev does not answer in time: it has not begun to watch yet, or it hangs",
            ),
        }
    }

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

const ENDED: &str = "this er-dev ended before it could answer";

fn refuse(text: &str) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    (status, axum::Json(json!({"error": text}))).into_response()
}
