//! Keys for a test, made at run time, and a server that hands them out: the metadata of an ECS instance, a credentials
//! URI and the service for roles in one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use tokio::process::Command;

use crate::common::Bed;

/// A key that the emulator lets in. Its parts must appear nowhere.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
    pub(crate) ends: jiff::Timestamp,
}

impl Given {
    /// A key without an end.
    pub(crate) fn lasting() -> Self {
        let canary = |name: &str| format!("{name}-{:032x}", fastrand::u128(..));
        Self {
            id: canary("id"),
            secret: canary("secret"),
            token: None,
            ends: jiff::Timestamp::now() + Duration::from_secs(3_600),
        }
    }

    /// A key with a token that ends after this time.
    pub(crate) fn ending(after: Duration) -> Self {
        Self {
            token: Some(format!("token-{:032x}", fastrand::u128(..))),
            ends: jiff::Timestamp::now() + after,
            ..Self::lasting()
        }
    }

    /// Lets the emulator know it.
    pub(crate) fn let_into(self, bed: &Bed) -> Self {
        let token = self.token.as_deref().map(|token| (token, self.ends));
        bed.emulator
            .with_world(|world| world.let_in(&self.id, &self.secret, token));
        self
    }

    pub(crate) fn revoke_in(&self, bed: &Bed) {
        bed.emulator.with_world(|world| world.revoke(&self.id));
    }

    /// The answer of a server that hands it out.
    pub(crate) fn answer(&self) -> String {
        serde_json::json!({
            "Code": "Success",
            "AccessKeyId": self.id,
            "AccessKeySecret": self.secret,
            "SecurityToken": self.token,
            "Expiration": self.ends.to_string(),
        })
        .to_string()
    }

    /// A `config.json` with one profile of this mode, with this key's parts and more fields.
    pub(crate) fn cli(&self, mode: &str, more: &[(&str, &str)]) -> String {
        let mut profile = serde_json::json!({
            "name": "work",
            "mode": mode,
            "access_key_id": self.id,
            "access_key_secret": self.secret,
            "sts_token": self.token,
        });
        for (name, value) in more {
            profile[name] = (*value).into();
        }
        serde_json::json!({"current": "work", "profiles": [profile]}).to_string()
    }

    /// A section of an INI file.
    pub(crate) fn ini(&self, kind: &str) -> String {
        format!(
            "[default]\ntype = {kind}\naccess_key_id = {}\naccess_key_secret = {}\nsecurity_token = {}\nrole_name = role\nrole_arn = {ROLE}\n",
            self.id,
            self.secret,
            self.token.as_deref().unwrap_or_default()
        )
    }

    /// Puts it where systemd would, each file in one piece.
    pub(crate) fn put(&self, bed: &Bed) {
        let dir = bed.path("keys");
        std::fs::create_dir_all(&dir).unwrap();
        write(&dir.join("access_key_secret"), &self.secret, 0o400);
        write(&dir.join("access_key_id"), &self.id, 0o400);
    }

    #[track_caller]
    pub(crate) fn assert_not_in(&self, text: &str) {
        for part in [Some(&self.id), Some(&self.secret), self.token.as_ref()] {
            let part = part.map_or("none", String::as_str);
            assert!(!text.contains(part), "{text}");
        }
    }
}

/// Writes a file with this mode in one piece.
pub(crate) fn write(path: &Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// The binary in the bed without a key in its environment, and with a home.
pub(crate) fn command(bed: &Bed, arguments: &[&str]) -> Command {
    let mut command = bed.command(arguments);
    command
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_ID")
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
        .env("HOME", home(bed));
    command
}

pub(crate) fn home(bed: &Bed) -> PathBuf {
    bed.path("home")
}

/// A server that hands out keys, on this machine.
pub(crate) struct Server {
    pub(crate) address: String,
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

struct Shared {
    answer: Mutex<String>,
    down: AtomicBool,
    fresh: AtomicBool,
    asked: AtomicUsize,
}

/// The token of the metadata's second mode.
const TOKEN: &str = "metadata-token";

impl Server {
    pub(crate) async fn start(key: &Given) -> Self {
        let shared = Arc::new(Shared {
            answer: Mutex::new(key.answer()),
            down: AtomicBool::new(false),
            fresh: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
        });
        let roles = "/latest/meta-data/ram/security-credentials/";
        let app = Router::new()
            .route("/key", get(hand_out))
            .route("/latest/api/token", put(token))
            .route(roles, get(async || "role\n"))
            .route(&format!("{roles}role"), get(hand_out_by_token))
            .route("/", post(assume_role))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            shared,
            serving,
        }
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}/key", self.address)
    }

    /// From now on this key is handed out.
    pub(crate) fn hand_out(&self, key: &Given) {
        *self.shared.answer.lock().unwrap() = key.answer();
        self.shared.down.store(false, Ordering::SeqCst);
    }

    /// From now on another key is handed out each time, which nobody knows.
    pub(crate) fn hand_out_nonsense(&self) {
        self.shared.fresh.store(true, Ordering::SeqCst);
    }

    /// From now on there is no key.
    pub(crate) fn fail(&self) {
        self.shared.down.store(true, Ordering::SeqCst);
    }

    /// How often a key was asked for.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn hand_out(State(shared): State<Arc<Shared>>) -> Result<String, StatusCode> {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    if shared.down.load(Ordering::SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    if shared.fresh.load(Ordering::SeqCst) {
        return Ok(Given::ending(Duration::from_secs(3_600)).answer());
    }
    Ok(shared.answer.lock().unwrap().clone())
}

async fn token(headers: HeaderMap) -> Result<&'static str, StatusCode> {
    match headers.get("x-aliyun-ecs-metadata-token-ttl-seconds") {
        Some(life) if life == "21600" => Ok(TOKEN),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

/// The metadata in its second mode: nothing without the token.
async fn hand_out_by_token(
    state: State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    match headers.get("x-aliyun-ecs-metadata-token") {
        Some(token) if token == TOKEN => hand_out(state).await,
        _ => Err(StatusCode::FORBIDDEN),
    }
}

/// The role that a key may take on.
pub(crate) const ROLE: &str = "acs:ram::1:role/r";

/// The service for roles. That the signature is right is proven elsewhere.
async fn assume_role(
    state: State<Arc<Shared>>,
    headers: HeaderMap,
    body: String,
) -> Result<String, StatusCode> {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|it| it == value);
    let signed = headers.get("authorization").is_some_and(|it| {
        let text = it.to_str().unwrap();
        text.starts_with("ACS3-HMAC-SHA256 Credential=id-")
    });
    let asked = body.contains("RoleArn=acs%3Aram%3A%3A1%3Arole%2Fr")
        && body.contains("DurationSeconds=3600")
        && body.contains("RoleSessionName=er-dev");
    if !signed || !asked || !is("x-acs-action", "AssumeRole") || !is("x-acs-version", "2015-04-01")
    {
        return Err(StatusCode::BAD_REQUEST);
    }
    let credentials = hand_out(state).await?;
    Ok(format!(
        "{{\"RequestId\":\"R\",\"Credentials\":{credentials}}}"
    ))
}
