//! The commands that talk to a running daemon.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::json;

use super::{
    SOCKET,
    client::{Client, ClientError},
    protocol::{Answer, MAX_ORDERED, Only, OnlyEvents, Order, Request},
    show,
};

/// How long the outcome of a refresh is waited for, unless something else is said: a transaction and its pauses.
const OUTCOME: Duration = Duration::from_secs(60);

/// Where the daemon is, and how its answers are printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct At {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub(crate) socket: PathBuf,
    /// Print JSON, one object per line; errors too, on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What can be asked of a running daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum ControlCommand {
    /// List the calls, those first that die soonest.
    Sessions {
        #[command(flatten)]
        at: At,
        /// Only those of this trunk (`default`: of none).
        #[arg(long, value_name = "NAME")]
        trunk: Option<String>,
        /// Only those with a peer in this network.
        #[arg(long, value_name = "NET", value_parser = crate::cli::network)]
        peer: Option<IpNet>,
        /// Only those whose deadline comes within this time, or has passed.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        due_within: Option<Duration>,
        /// Only those in this state.
        #[arg(long, value_name = "STATE", value_parser = state)]
        state: Option<String>,
        /// How many at most.
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = limit, conflicts_with = "all")]
        limit: usize,
        /// All of them, the oldest first.
        #[arg(long)]
        all: bool,
    },
    /// Tell all about one call: who must refresh it and by when, what sipst would do, and what happened.
    Show {
        #[command(flatten)]
        at: At,
        /// Its Call-ID.
        call_id: String,
    },
    /// Refresh a call now, by the same rules as when it is due, and wait for what comes of it.
    Refresh {
        #[command(flatten)]
        at: At,
        /// Its Call-ID.
        call_id: String,
        /// Do not wait.
        #[arg(long)]
        no_wait: bool,
    },
    /// Keep sipst's hands off a call: it is followed and alerted about, and nothing is sent in it, even after a restart.
    Hold {
        #[command(flatten)]
        at: At,
        /// Its Call-ID.
        call_id: String,
    },
    /// End that.
    Release {
        #[command(flatten)]
        at: At,
        /// Its Call-ID.
        call_id: String,
    },
    /// Print what happened lately, or with --follow what happens from now on.
    Events {
        #[command(flatten)]
        at: At,
        /// Go on until stopped.
        #[arg(short, long)]
        follow: bool,
        /// Only some: event=KIND (may be given several times), alerts, trunk=NAME, peer=NET or call_id=ID; all that is given
        /// has to be true.
        #[arg(long, value_name = "WHAT")]
        filter: Vec<String>,
    },
    /// Have the daemon read its configuration anew. A bad one changes nothing.
    Reload {
        #[command(flatten)]
        at: At,
    },
}

/// A mistake in what was typed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

impl ControlCommand {
    fn at(&self) -> &At {
        match self {
            Self::Sessions { at, .. }
            | Self::Show { at, .. }
            | Self::Refresh { at, .. }
            | Self::Hold { at, .. }
            | Self::Release { at, .. }
            | Self::Events { at, .. }
            | Self::Reload { at } => at,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// There is no daemon, or it does not do it; with `--json` that is told on stdout too.
    pub(crate) fn execute(self) -> Result<()> {
        let at = self.at().clone();
        let done = self.ask(&at);
        if let (true, Err(error)) = (at.json, &done)
            && let Some(error) = error.downcast_ref::<ClientError>()
        {
            print(&format!("{}\n", json!({ "error": { "word": error.word(), "message": error.to_string() } })))?;
        }
        done
    }

    fn ask(self, at: &At) -> Result<()> {
        match self {
            Self::Sessions { at: _, trunk, peer, due_within, state, limit, all } => {
                let due_within_s = due_within.map(|within| within.as_secs());
                let only = Only { trunk, peer, due_within_s, state, ..Only::default() };
                let (order, limit) = if all { (Order::Age, None) } else { (Order::Deadline, Some(limit)) };
                sessions(at, &Request::Sessions { only, order, limit })
            }
            Self::Show { at: _, call_id } => {
                let mut client = Client::connect(&at.socket)?;
                let mut first = true;
                client.all(&Request::Show { call_id }, |answer| -> Result<()> {
                    let Answer::Call(call) = answer else { return Ok(()) };
                    if at.json {
                        return print(&line(&call)?);
                    }
                    let gap = if std::mem::take(&mut first) { "" } else { "\n" };
                    print(&format!("{gap}{}", show::call(&call)))
                })?;
                Ok(())
            }
            Self::Refresh { at: _, call_id, no_wait } => refresh(at, call_id, no_wait),
            Self::Hold { at: _, call_id } => wish(at, &Request::Hold { call_id }, "held"),
            Self::Release { at: _, call_id } => wish(at, &Request::Release { call_id }, "released"),
            Self::Events { at: _, follow, filter } => events(at, follow, &filter),
            Self::Reload { at: _ } => {
                let done = Client::connect(&at.socket)?.all(&Request::Reload {}, |_| Ok::<_, ClientError>(()))?;
                if at.json {
                    return print(&line(&done)?);
                }
                let changes = done["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
                let changes = changes.iter().filter_map(serde_json::Value::as_str);
                print(&changes.map(|change| format!("{change}\n")).collect::<String>())
            }
        }
    }
}

fn sessions(at: &At, request: &Request) -> Result<()> {
    let mut client = Client::connect(&at.socket)?;
    let mut headed = at.json;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = client.all(request, |answer| -> Result<()> {
        let Answer::Session(row) = answer else { return Ok(()) };
        if !std::mem::replace(&mut headed, true) {
            out.write_all(show::HEADING.as_bytes()).context(STDOUT)?;
        }
        let text = if at.json { line(&row)? } else { show::row(&row) };
        out.write_all(text.as_bytes()).context(STDOUT)
    })?;
    out.flush().context(STDOUT)?;
    drop(out);
    if !at.json {
        match (done["sessions"].as_u64(), done["more"].as_bool(), done["found"].as_u64()) {
            (Some(0), ..) => {
                note("no such call (one that was up before sipst is known from its next re-INVITE or UPDATE on)");
            }
            (Some(shown), Some(true), Some(found)) => {
                note(&format!(
                    "{} more calls: `--limit`, `--all`, or a filter shows others",
                    found.saturating_sub(shown)
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn wish(at: &At, request: &Request, what: &str) -> Result<()> {
    let done = Client::connect(&at.socket)?.all(request, |_| Ok::<_, ClientError>(()))?;
    if at.json { print(&line(&done)?) } else { print(&format!("{what}: {} dialog(s)\n", done["dialogs"])) }
}

/// Follows the call's events before it asks, so that none is missed.
fn refresh(at: &At, call_id: String, no_wait: bool) -> Result<()> {
    let request = Request::Refresh { call_id: call_id.clone() };
    if no_wait {
        return wish(at, &request, "asked for");
    }
    let mut follower = Client::connect(&at.socket)?;
    let only = OnlyEvents { call_id: Some(call_id), ..OnlyEvents::default() };
    follower.ask(&Request::Events { only, follow: true })?;
    let asked = Client::connect(&at.socket)?.all(&request, |_| Ok::<_, ClientError>(()))?;
    let mut open = asked["dialogs"].as_u64().unwrap_or(1);
    let until = Instant::now() + OUTCOME;
    let mut failed = None;
    let mut done = serde_json::Value::Null;
    while open > 0 {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        follower.wait(Some(left))?;
        let answer = match follower.next(&mut done) {
            Ok(Some(answer)) => answer,
            Ok(None) => break,
            Err(ClientError::Silent(_)) => {
                let message =
                    format!("nothing has come of it within {} s; `sipst show` tells how it goes on", OUTCOME.as_secs());
                return Err(ClientError::from(super::protocol::Failure::new("no_outcome_yet", message)).into());
            }
            Err(error) => return Err(error.into()),
        };
        let Answer::Event(event) = answer else { continue };
        print(&if at.json { line(&event)? } else { show::happening(&event) })?;
        match event["event"].as_str() {
            Some("refresh_succeeded") => open -= 1,
            Some("refresh_failed" | "session_ended" | "session_held" | "session_expired") => {
                failed = Some(event["reason"].as_str().unwrap_or("the call is over").to_owned());
                open -= 1;
            }
            // The breaker holds it back.
            Some("refresh_overdue") => {
                failed = Some(event["reason"].as_str().unwrap_or_default().to_owned());
                open -= 1;
            }
            _ => {}
        }
    }
    match failed {
        None => Ok(()),
        Some(why) => {
            let message = format!("the call was not refreshed: {why}");
            Err(ClientError::from(super::protocol::Failure::new("not_refreshed", message)).into())
        }
    }
}

fn events(at: &At, follow: bool, filter: &[String]) -> Result<()> {
    let only = parse_filter(filter)?;
    let mut client = Client::connect(&at.socket)?;
    if follow {
        client.wait(None)?;
    }
    client.all(&Request::Events { only, follow }, |answer| -> Result<()> {
        match answer {
            Answer::Event(event) => print(&if at.json { line(&event)? } else { show::event(&event) }),
            Answer::Lost(lost) if at.json => print(&line(&json!({ "lost": lost }))?),
            Answer::Lost(lost) => print(&format!("... {lost} events were left out: they were read too slowly\n")),
            Answer::Session(_) | Answer::Call(_) | Answer::Done(_) | Answer::Error(_) => Ok(()),
        }
    })?;
    Ok(())
}

fn parse_filter(filter: &[String]) -> Result<OnlyEvents, UsageError> {
    let mut only = OnlyEvents::default();
    for given in filter {
        match given.split_once('=').unwrap_or((given, "")) {
            ("alerts", "") => only.alerts = true,
            ("event", kind) if is_kind(kind) => only.kinds.push(kind.into()),
            ("event", kind) => {
                return Err(UsageError(format!(
                    "--filter {given}: there is no event `{kind}`; docs/events.md lists them"
                )));
            }
            ("trunk", name) if !name.is_empty() => only.trunk = Some(name.into()),
            ("call_id", id) if !id.is_empty() => only.call_id = Some(id.into()),
            ("peer", net) => {
                let net = crate::cli::network(net).map_err(|why| UsageError(format!("--filter {given}: {why}")))?;
                only.peer = Some(net);
            }
            _ => {
                return Err(UsageError(format!(
                    "--filter {given}: write event=KIND, alerts, trunk=NAME, peer=NET or call_id=ID"
                )));
            }
        }
    }
    Ok(only)
}

fn is_kind(name: &str) -> bool {
    st_core::EventKind::ALL.iter().any(|kind| kind.name() == name)
}

fn state(text: &str) -> Result<String, String> {
    let only = Only { state: Some(text.into()), ..Only::default() };
    only.fault().map_or_else(|| Ok(text.to_owned()), Err)
}

fn limit(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_ORDERED).contains(number));
    number.ok_or_else(|| format!("write a number from 1 to {MAX_ORDERED}, or use --all"))
}

const STDOUT: &str = "cannot write to stdout";

fn line(value: &impl serde::Serialize) -> Result<String> {
    let mut line = serde_json::to_string(value).context("cannot write JSON")?;
    line.push('\n');
    Ok(line)
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context(STDOUT)
}

/// Beside the answer, for people.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// How the daemon does; `None` where none runs.
///
/// # Errors
/// One runs and does not say.
pub(crate) fn status(socket: &std::path::Path) -> Result<Option<serde_json::Value>, ClientError> {
    match Client::connect(socket) {
        Ok(mut client) => client.all(&Request::Status {}, |_| Ok(())).map(Some),
        Err(ClientError::NotThere { .. } | ClientError::LeftOver { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::HELD;

    #[test]
    fn a_filter_is_read_and_what_is_wrong_with_it_is_said() {
        let given = |parts: &[&str]| parse_filter(&parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        let only = given(&["event=refresh_failed", "event=session_ended", "alerts", "trunk=carrier", "peer=192.0.2.1"])
            .unwrap();
        assert_eq!(only.kinds, ["refresh_failed", "session_ended"]);
        assert_eq!((only.alerts, only.trunk.as_deref()), (true, Some("carrier")));
        assert_eq!(only.peer, Some("192.0.2.1/32".parse().unwrap()));
        for wrong in ["event=refresh", "trunk=", "peer=host", "nothing", "call_id"] {
            let said = given(&[wrong]).unwrap_err().to_string();
            assert!(said.starts_with(&format!("--filter {wrong}: ")), "{said}");
        }
    }

    #[test]
    fn a_state_is_one_of_those_that_there_are_or_held() {
        assert!(state("expiring").is_ok() && state(HELD).is_ok());
        assert!(state("dying").unwrap_err().contains("expiring"));
    }
}
