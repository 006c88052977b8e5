//! The daemon's side of the screen: asked again and again by a thread of its own, and never more than it has time for.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use super::state::{Report, Wanted};
use crate::{
    control::{
        client::{Client, ClientError},
        protocol::{Answer, Only, Order, Request},
    },
    output::chain,
};

/// Between two reports.
const EVERY: Duration = Duration::from_secs(1);

/// The least between two reports, whoever types how fast.
const LEAST: Duration = Duration::from_millis(100);

/// The daemon is left alone for so many times as long as its answer took: with very many calls it has better to do.
const REST: u32 = 9;

/// The longest rest.
const LONGEST: Duration = Duration::from_secs(30);

/// A report, or why there is none.
pub(crate) type Said = Result<Report, String>;

/// A daemon, connected or not.
pub(crate) struct Source {
    socket: PathBuf,
    client: Option<Client>,
}

impl Source {
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self { socket, client: None }
    }

    /// One report.
    ///
    /// # Errors
    /// There is no daemon, or it does not answer; the next call tries anew.
    pub(crate) fn ask(&mut self, wanted: &Wanted) -> Result<Report, ClientError> {
        // A connection from before may be over for many reasons: a daemon's end, or a pause that was long.
        if let Some(mut client) = self.client.take()
            && let Ok(report) = report(&mut client, wanted)
        {
            self.client = Some(client);
            return Ok(report);
        }
        let mut client = Client::connect(&self.socket)?;
        let report = report(&mut client, wanted)?;
        self.client = Some(client);
        Ok(report)
    }

    /// Goes on by a thread: takes what is wanted, gives what is said.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(crate) fn start(mut self) -> std::io::Result<(Sender<Wanted>, Receiver<Said>)> {
        let (want, wanted) = channel::<Wanted>();
        let (tell, told) = channel();
        thread::Builder::new().name("asks".into()).spawn(move || {
            let Ok(mut now) = wanted.recv() else { return };
            loop {
                let began = Instant::now();
                if !now.paused {
                    let said = self.ask(&now).map_err(|error| chain(&error));
                    if tell.send(said).is_err() {
                        return;
                    }
                }
                let took = began.elapsed();
                let rest = (took * REST).clamp(EVERY, LONGEST);
                // What is typed meanwhile is asked for soon, yet not at the daemon's expense.
                thread::sleep((took * 2).clamp(LEAST, rest));
                match next(&wanted, rest) {
                    Ok(Some(next)) => now = next,
                    Ok(None) => {}
                    Err(()) => return,
                }
            }
        })?;
        Ok((want, told))
    }
}

/// The last of what is wanted, waited for a while; an error where nobody wants anything any more.
fn next(wanted: &Receiver<Wanted>, within: Duration) -> Result<Option<Wanted>, ()> {
    match wanted.recv_timeout(within) {
        Ok(first) => Ok(Some(wanted.try_iter().last().unwrap_or(first))),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(()),
    }
}

fn report(client: &mut Client, wanted: &Wanted) -> Result<Report, ClientError> {
    let Wanted { text, order, limit, call_id, paused: _ } = wanted;
    let status = client.all(&Request::Status {}, |_| Ok::<_, ClientError>(()))?;
    let text = (!text.trim().is_empty()).then(|| text.clone());
    let only = Only { text, ..Only::default() };
    let mut rows = Vec::new();
    let done = client.all(&Request::Sessions { only, order: *order, limit: Some(*limit) }, |answer| {
        if let Answer::Session(row) = answer {
            rows.push(*row);
        }
        Ok::<_, ClientError>(())
    })?;
    let mut calls = Vec::new();
    if let Some(call_id) = call_id.clone() {
        let shown = client.all(&Request::Show { call_id }, |answer| {
            if let Answer::Call(call) = answer {
                calls.push(*call);
            }
            Ok::<_, ClientError>(())
        });
        // It may have ended since it was selected.
        if let Err(error) = shown
            && error.word() != "no_such_call"
        {
            return Err(error);
        }
    }
    let found = done["found"].as_u64().filter(|_| *order == Order::Deadline);
    Ok(Report { status, rows, found, more: done["more"] == true, calls })
}
