//! The page in a browser, as somebody sees it: headless Chromium, driven by chromedriver.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{LISTEN, address};
use crate::common::{Bed, LIMIT, code, has, say};

/// A browser with one page. It ends when it is dropped.
struct Browser {
    client: reqwest::Client,
    session: String,
    _driver: Child,
}

impl Browser {
    /// Starts one; `None`, said aloud, where there is none.
    async fn start() -> Option<Self> {
        if !(has("chromedriver") && has("chromium")) {
            return None;
        }
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = tokio::time::timeout(LIMIT, lines.next_line()).await;
            let line = line.expect("chromedriver does not start").unwrap();
            let line = line.expect("chromedriver ended");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(LIMIT)
            .build()
            .unwrap();
        // A sandbox inside of a sandbox is not to be had on every machine.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments},
        }}});
        let mut browser = Self {
            client,
            session: format!("http://127.0.0.1:{port}/session"),
            _driver: driver,
        };
        let begun = browser.post("", wanted).await;
        let Some(id) = begun["sessionId"].as_str() else {
            say(&format!(
                "SKIPPED: Chromium does not start here: {}",
                begun["message"]
            ));
            return None;
        };
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.session);
        let answer = self.client.post(url).json(&body).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["value"].take()
    }

    /// What a piece of a function returns in the page.
    async fn run(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.post("/execute/sync", body).await
    }

    /// Waits until an expression holds in the page, and returns when that was, in milliseconds since 1970. The page is
    /// looked at whenever something changes in it.
    async fn until(&self, holds: &str) -> u64 {
        let script = format!(
            "const done = arguments[0], look = () => {{ if ({holds}) {{ seen.disconnect(); done(Date.now()); }} }}; \
             const seen = new MutationObserver(look); \
             seen.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }}); look();"
        );
        let told = self
            .post("/execute/async", json!({"script": script, "args": []}))
            .await;
        told.as_u64().unwrap_or_else(|| panic!("{holds}: {told}"))
    }

    /// Clicks on a button.
    async fn click(&self, id: &str) {
        let found = self
            .post(
                "/element",
                json!({"using": "css selector", "value": format!("#{id}")}),
            )
            .await;
        let element = found.as_object().unwrap().values().next().unwrap();
        let element = element.as_str().unwrap();
        self.post(&format!("/element/{element}/click"), json!({}))
            .await;
    }

    /// What went wrong in the page since the last time it was asked for.
    async fn errors(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let entries = log.as_array().unwrap().iter();
        let wrong =
            entries.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        wrong.map(|entry| entry["message"].to_string()).collect()
    }

    async fn end(self) {
        let _ = self.client.delete(&self.session).send().await;
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_millis()).unwrap()
}

#[tokio::test]
async fn the_page_shows_an_upload_within_a_second_and_goes_on_after_a_restart() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let bed = Bed::with(&["hello", "other"], Default::default(), LISTEN).await;
    let mut watch = bed.watch(&[]).await;
    let address = address(&watch);
    browser
        .post("/url", json!({"url": format!("http://{address}/")}))
        .await;
    browser
        .until("document.querySelector('#link').textContent === 'live'")
        .await;
    let shown = |revision: &Value| {
        let tail = revision.as_str().unwrap();
        let tail = &tail[tail.len() - 4..];
        format!(
            "document.querySelector('#events').textContent.includes('{tail}') && \
             document.querySelector('#routines').textContent.includes('{tail}')"
        )
    };
    for save in 1..4 {
        let saved = now();
        bed.write("hello", &code("hello", save));
        let uploaded = watch.end_of_edit().await;
        let seen = browser.until(&shown(&uploaded["revision"])).await;
        assert!(seen < saved + 1_000, "{} ms", seen - saved);
    }
    // Its buttons do what they say.
    browser.click("pause").await;
    watch.until("paused").await;
    browser
        .until("document.querySelector('#pause').textContent === 'Resume'")
        .await;
    browser
        .until("document.querySelector('#notices').textContent.startsWith('Paused')")
        .await;
    browser.click("pause").await;
    watch.until("continued").await;
    browser
        .until("document.querySelector('#notices').hidden")
        .await;
    browser.click("flush").await;
    browser
        .until("document.querySelector('#said').textContent !== ''")
        .await;
    // What others wrote is text.
    bed.fault(
        "UploadRoutineCode:1-2:code(InvalidParameter,<img src=x onerror=document.title=1>,400)",
    );
    bed.write("other", &code("other", 1));
    browser
        .until("document.querySelector('#events').textContent.includes('<img src=x')")
        .await;
    assert_eq!(browser.run("return document.images.length").await, 0);
    assert_eq!(browser.errors().await, [""; 0]);

    // The next one has the same port, as it would with one that is written down.
    let more = LISTEN.replace(":0", &format!(":{}", address.port()));
    bed.configure(&bed.emulator.endpoint(), &more);
    watch.stop().await;
    browser
        .until("document.querySelector('#link').textContent !== 'live'")
        .await;
    let mut watch = bed.watch(&[]).await;
    browser
        .until("document.querySelector('#link').textContent === 'live'")
        .await;
    bed.write("hello", &code("hello", 4));
    let uploaded = watch.end_of_edit().await;
    browser.until(&shown(&uploaded["revision"])).await;
    let mut errors = browser.errors().await;
    // That nobody answered meanwhile is told by the browser itself.
    errors.retain(|error| !error.contains("net::ERR_"));
    assert_eq!(errors, [""; 0]);
    watch.stop().await;
    browser.end().await;
}

#[tokio::test]
async fn the_page_fits_a_phone_and_is_used_by_keyboard() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let long = "a-routine-with-a-name-that-takes-more-than-one-line-on-a-phone";
    let bed = Bed::with(&["hello", long], Default::default(), LISTEN).await;
    let mut watch = bed.watch(&[]).await;
    bed.write(long, "let a = ;\n");
    watch.until("error").await;
    let metrics = json!({"width": 375, "height": 812, "deviceScaleFactor": 2, "mobile": true});
    let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
    browser.post("/goog/cdp/execute", command).await;
    let url = format!("http://{}/", address(&watch));
    browser.post("/url", json!({"url": url})).await;
    browser
        .until("document.querySelector('#routines').textContent.includes('refused')")
        .await;
    browser
        .until("document.querySelectorAll('.versions li').length > 1")
        .await;
    browser
        .run("document.querySelectorAll('details').forEach((it) => { it.open = true; })")
        .await;
    let wide = "return [...document.querySelectorAll('*')].filter((it) => it.getBoundingClientRect().right > 375.5).length \
                + Number(document.documentElement.scrollWidth > 375)";
    assert_eq!(browser.run(wide).await, 0);
    // The first two stops of the tab key are the orders, and a key gives them.
    let press = async |key: &str| {
        let actions = json!({"actions": [{"type": "key", "id": "keys", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key},
        ]}]});
        browser.post("/actions", actions).await;
    };
    press("\u{e004}").await;
    press("\u{e004}").await;
    assert_eq!(
        browser.run("return document.activeElement.id").await,
        "pause"
    );
    press(" ").await;
    watch.until("paused").await;
    browser.until("document.activeElement.id === 'pause' && document.activeElement.textContent === 'Resume'").await;
    assert_eq!(browser.errors().await, [""; 0]);
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.stop()).await;
    assert!(ended.is_ok(), "the browser holds it up");
    browser.end().await;
}
