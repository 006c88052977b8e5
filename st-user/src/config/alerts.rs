//! Where alerts go beside the log, and how many.

use std::{ops::RangeInclusive, time::Duration};

use ureq::http::Uri;

use super::{
    fields::{Fields, Given, Placed, duration, nodes, number, text},
    problem::Problem,
};

/// How long one attempt may last.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
/// Where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The same for a program.
const EXEC_TIMEOUT: Duration = Duration::from_secs(10);
/// How many programs may run at once, for one receiver.
const AT_ONCE: RangeInclusive<usize> = 1..=16;
const MAX_RECEIVERS: usize = 16;
const MAX_ARGUMENTS: usize = 64;
/// Alerts of one trunk in a minute, where nothing else is said.
const RATE: u32 = 30;
const MAX_RATE: u32 = 10_000;

/// A place that alerts are posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// `http` or `https`.
    pub url: String,
    /// For one attempt, from connecting to the last byte of the answer.
    pub timeout: Duration,
}

/// A Prometheus Alertmanager, which has API v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alertmanager {
    /// Its own address, without the path of the API.
    pub url: String,
    /// For one attempt.
    pub timeout: Duration,
    /// The operator's own page on what to do: `#` and the kind of the event follow. `None`: the documentation of sipst.
    pub runbook: Option<String>,
}

/// A program that is run for each alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Its path and its arguments; no shell sees them.
    pub command: Vec<String>,
    /// How long it may run.
    pub timeout: Duration,
    /// How many may run at once.
    pub at_once: usize,
}

/// Who is told of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "what they are of says it")]
pub enum Receiver {
    Webhook(Webhook),
    Alertmanager(Alertmanager),
    Exec(Exec),
}

impl Receiver {
    /// What it is, as the configuration calls it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Alertmanager(_) => "alertmanager",
            Self::Exec(_) => "exec",
        }
    }
}

/// All that is said about alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alerting {
    /// Who is told, none twice.
    pub receivers: Vec<Receiver>,
    /// How many alerts of one trunk are told in a minute; `None`: any number.
    pub rate: Option<u32>,
}

impl Default for Alerting {
    fn default() -> Self {
        Self { receivers: Vec::new(), rate: Some(RATE) }
    }
}

/// Whether events go to systemd's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journald {
    /// Where systemd has connected this process with it.
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

impl Journald {
    pub(super) const WORDS: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("true", Self::On), ("false", Self::Off)];
}

pub(super) fn alerting(fields: &mut Fields<'_>) -> Alerting {
    let base = Alerting::default();
    let receivers = fields.get("alerts", receivers).unwrap_or_default();
    let rate = fields.get("alert_rate", rate).unwrap_or(base.rate);
    Alerting { receivers, rate }
}

fn rate(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Option<u32>> {
    let text = text(given, problems)?;
    if text == "off" {
        return Some(None);
    }
    let rate = text.parse().ok().filter(|rate| (1..=MAX_RATE).contains(rate));
    if rate.is_none() {
        let cure = format!("use 1 to {MAX_RATE}, or `off` for no limit");
        given.wrong(format!("is `{text}`, which is no number of alerts a minute"), cure, problems);
    }
    rate.map(Some)
}

fn receivers(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Vec<Receiver>> {
    let nodes = nodes(given, MAX_RECEIVERS, problems)?;
    let mut receivers: Vec<Placed<Receiver>> = Vec::new();
    for node in nodes {
        let Some(mut fields) = Fields::open(Given { name: "alerts", node }, problems) else { continue };
        let before = fields.problems();
        let found = [
            fields.get("webhook", webhook).map(Receiver::Webhook),
            fields.get("alertmanager", alertmanager).map(Receiver::Alertmanager),
            fields.get("exec", exec).map(Receiver::Exec),
        ];
        let mut found = found.into_iter().flatten();
        let receiver = found.next();
        if found.next().is_some() {
            fields.note(node.at, "one entry names several receivers", "begin each with `- ` in a line of its own");
        } else if receiver.is_none() && fields.problems() == before {
            let cure = "add `webhook: { url: \"http://...\" }`, `alertmanager` or `exec`";
            fields.note(node.at, "an entry of `alerts` names no receiver", cure);
        }
        fields.close();
        let Some(value) = receiver else { continue };
        match receivers.iter().find(|first| is_same(&first.value, &value)) {
            Some(first) => {
                let what = format!("this {} is there twice, first in line {}", value.kind(), first.at.line);
                problems.push(Problem::new(node.at, what, "keep one"));
            }
            None => receivers.push(Placed { at: node.at, value }),
        }
    }
    Some(receivers.into_iter().map(|placed| placed.value).collect())
}

fn is_same(a: &Receiver, b: &Receiver) -> bool {
    match (a, b) {
        (Receiver::Webhook(a), Receiver::Webhook(b)) => a.url == b.url,
        (Receiver::Alertmanager(a), Receiver::Alertmanager(b)) => a.url == b.url,
        (Receiver::Exec(a), Receiver::Exec(b)) => a.command == b.command,
        (Receiver::Webhook(_) | Receiver::Alertmanager(_) | Receiver::Exec(_), _) => false,
    }
}

fn webhook(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Webhook> {
    let mut fields = Fields::open(given, problems)?;
    let url = fields.need("url", "add the address that alerts are posted to", url);
    let timeout = fields.get("timeout", duration(TIMEOUTS)).unwrap_or(TIMEOUT);
    fields.close();
    Some(Webhook { url: url?, timeout })
}

fn alertmanager(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Alertmanager> {
    let mut fields = Fields::open(given, problems)?;
    let url = fields.need("url", "add its address, such as `http://127.0.0.1:9093`", url);
    let timeout = fields.get("timeout", duration(TIMEOUTS)).unwrap_or(TIMEOUT);
    let runbook = fields.get("runbook", self::url);
    fields.close();
    let url = url?;
    if url.ends_with("/alerts") || url.contains(['?', '#']) {
        given.wrong(
            "has the path of its API in `url`",
            "write http://HOST:PORT, and its `--web.route-prefix`",
            problems,
        );
        return None;
    }
    Some(Alertmanager { url, timeout, runbook })
}

fn exec(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Exec> {
    let mut fields = Fields::open(given, problems)?;
    let arguments = |given: Given<'_>, problems: &mut Vec<Problem>| {
        let all = nodes(given, MAX_ARGUMENTS, problems)?;
        let all =
            all.iter().map(|node| text(Given { name: given.name, node }, problems)).collect::<Option<Vec<_>>>()?;
        match all.first() {
            Some(program) if program.starts_with('/') => return Some(all),
            Some(program) => {
                let what = format!("begins with `{program}`, which is not an absolute path");
                given.wrong(what, "write [/usr/local/bin/PROGRAM, ARGUMENT]: no shell is asked", problems);
            }
            None => given.wrong("is an empty list", "write [/usr/local/bin/PROGRAM, ARGUMENT]", problems),
        }
        None
    };
    let command = fields.need("command", "add `command: [/usr/local/bin/PROGRAM]`", arguments);
    let timeout = fields.get("timeout", duration(TIMEOUTS)).unwrap_or(EXEC_TIMEOUT);
    let at_once = fields.get("at_once", number(AT_ONCE, "a number of programs", "a number from 1 to 16")).unwrap_or(2);
    fields.close();
    Some(Exec { command: command?, timeout, at_once })
}

fn url(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    let url = text(given, problems)?;
    let usable = url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if !usable {
        given.wrong(format!("is `{url}`, which is no http or https address"), "write http://HOST:PORT/PATH", problems);
    }
    usable.then_some(url)
}
