//! A real browser in a host: Chromium without a screen, led by WebDriver (W3C) through chromedriver.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use ureq::Agent;

use crate::{Host, Process};

/// How long the driver and the browser may take to start, and one command may.
const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 9515;

/// The Enter key, and Escape, in WebDriver's own plane.
pub const ENTER: &str = "\u{e007}";
/// See [`ENTER`].
pub const ESCAPE: &str = "\u{e00c}";

/// A browser with one window; it ends when dropped, with its driver.
pub struct Browser<'h> {
    host: &'h Host,
    session: String,
    agent: Agent,
    _driver: Process,
}

impl<'h> Browser<'h> {
    /// Starts one.
    pub fn start(host: &'h Host) -> Result<Self> {
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={PORT}")).env("HOME", "/run").env("TMPDIR", "/run");
        let driver = host.spawn(command).context("`cargo xtask setup` brings chromium-driver")?;
        let agent = Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        let mut browser = Self { host, session: String::new(), agent, _driver: driver };
        let end = Instant::now() + PATIENCE;
        while browser.send("GET", "/status", None).is_err() {
            if Instant::now() > end {
                bail!("chromedriver does not listen: {}", browser._driver.said());
            }
            thread::sleep(Duration::from_millis(50));
        }
        // Root may not use the browser's own sandbox. By the pipe it ends when its driver does, however that ends.
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
            "--user-data-dir=/run/chromium",
            "--window-size=1200,800",
        ];
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let answer = browser.send("POST", "/session", Some(json!({ "capabilities": { "alwaysMatch": wanted } })))?;
        browser.session = answer["sessionId"].as_str().context("no session")?.to_owned();
        Ok(browser)
    }

    /// Opens an address.
    pub fn open(&self, url: &str) -> Result<()> {
        self.command("POST", "url", json!({ "url": url })).map(drop)
    }

    /// What a script's body returns.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("POST", "execute/sync", json!({ "script": script, "args": [] }))
    }

    /// What an expression is, as text.
    pub fn text(&self, expression: &str) -> Result<String> {
        let value = self.run(&format!("return String({expression});"))?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an expression is true.
    pub fn until(&self, expression: &str, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        loop {
            if self.run(&format!("return Boolean({expression});"))? == Value::Bool(true) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("this is not so after {within:?}: {expression}\n{}", self.text("document.body.innerText")?);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses keys where the focus is.
    pub fn press(&self, keys: &str) -> Result<()> {
        let pressed = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]);
        let actions: Vec<Value> = pressed.collect();
        let device = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.command("POST", "actions", json!({ "actions": [device] })).map(drop)
    }

    /// Makes the page so wide and high, as a telephone's screen or a desk's, and dark or light.
    pub fn size(&self, width: u32, height: u32, dark: bool) -> Result<()> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }))
    }

    /// Writes what is to be seen to a file.
    pub fn screenshot(&self, file: &Path) -> Result<()> {
        let picture = self.command("GET", "screenshot", Value::Null)?;
        let picture = BASE64_STANDARD.decode(picture.as_str().unwrap_or_default()).context("no picture")?;
        std::fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What the page has complained of since the last time: errors of its script, and what its policy forbade.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.command("POST", "se/log", json!({ "type": "browser" }))?;
        let entries = entries.as_array().into_iter().flatten();
        let severe = entries.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        Ok(severe.filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect())
    }

    fn devtools(&self, name: &str, params: Value) -> Result<()> {
        self.command("POST", "goog/cdp/execute", json!({ "cmd": name, "params": params })).map(drop)
    }

    fn command(&self, method: &str, command: &str, body: Value) -> Result<Value> {
        let path = format!("/session/{}/{command}", self.session);
        self.send(method, &path, Some(body).filter(|body| !body.is_null()))
    }

    /// The sockets are the host's.
    fn send(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let (agent, url) = (self.agent.clone(), format!("http://127.0.0.1:{PORT}{path}"));
        let (delete, path) = (method == "DELETE", path.to_owned());
        let answer = self.host.enter(move || -> Result<String> {
            let mut answer = match (body, delete) {
                (Some(body), _) => agent.post(&url).content_type("application/json").send(body.to_string()),
                (None, true) => agent.delete(&url).call(),
                (None, false) => agent.get(&url).call(),
            }?;
            // A screenshot is larger than what is read otherwise.
            Ok(answer.body_mut().with_config().limit(64 << 20).read_to_string()?)
        })?;
        let mut answer: Value = serde_json::from_str(&answer).with_context(|| format!("chromedriver: {answer}"))?;
        let value = answer["value"].take();
        match value["error"].as_str() {
            Some(error) => bail!("{path}: {error}: {}", value["message"].as_str().unwrap_or_default()),
            None => Ok(value),
        }
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.send("DELETE", &format!("/session/{}", self.session), None);
        }
    }
}
