//! Whoever asks the daemon's loop: a piece at a time, so that the loop is held up by nobody.

use std::{collections::BinaryHeap, sync::Arc};

use st_core::SessionId;
use tokio::sync::{mpsc, oneshot};

use super::{
    protocol::{Failure, Only, Row},
    server::{Ask, Census, Page},
};

/// Dialogs of one Call-ID that are shown or commanded.
const MAX_DIALOGS: usize = 64;

/// The most that is made room for before it is known how many sessions there are.
const ROOM: usize = 1_000;

/// A way to the daemon's loop.
#[derive(Clone, Debug)]
pub(crate) struct Asker(mpsc::Sender<Ask>);

/// The sessions whose deadlines are nearest.
#[derive(Debug)]
pub(crate) struct Nearest {
    pub(crate) rows: Vec<Row>,
    /// How many there were of those that were asked for.
    pub(crate) found: usize,
}

impl Asker {
    pub(crate) fn new(asks: mpsc::Sender<Ask>) -> Self {
        Self(asks)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The daemon is about to end.
    pub(crate) async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.put(ask(reply)).await?;
        answer.await.map_err(|_| ending())
    }

    /// Asks what has no answer of its own.
    ///
    /// # Errors
    /// The daemon is about to end.
    pub(crate) async fn put(&self, ask: Ask) -> Result<(), Failure> {
        self.0.send(ask).await.map_err(|_| ending())
    }

    /// A piece of the sessions.
    pub(crate) async fn page(&self, from: SessionId, only: &Arc<Only>) -> Result<Page, Failure> {
        let only = Arc::clone(only);
        self.ask(|reply| Ask::Page { from, only, reply }).await
    }

    /// All sessions, counted.
    pub(crate) async fn census(&self) -> Result<Census, Failure> {
        let (mut census, mut next) = (Census::default(), Some(SessionId(0)));
        while let Some(from) = next {
            (census, next) = self.ask(|reply| Ask::Census { from, census, reply }).await?;
        }
        Ok(census)
    }

    /// Those whose deadlines are nearest, `limit` of them at most: kept as it goes through all.
    pub(crate) async fn nearest(&self, only: Only, limit: usize) -> Result<Nearest, Failure> {
        let only = Arc::new(only);
        let mut nearest = BinaryHeap::with_capacity(limit.min(ROOM) + 1);
        let (mut next, mut found) = (Some(SessionId(0)), 0_usize);
        while let Some(from) = next {
            let page = self.page(from, &only).await?;
            for (session, row) in page.rows {
                found += 1;
                nearest.push(Ranked { left_ms: row.left_s.map_or(i64::MAX, |left| (left * 1e3) as i64), session, row });
                if nearest.len() > limit {
                    nearest.pop();
                }
            }
            next = page.next;
        }
        Ok(Nearest { rows: nearest.into_sorted_vec().into_iter().map(|ranked| ranked.row).collect(), found })
    }

    /// The dialogs of a call: forks have the same Call-ID, and a call that is passed on has two.
    pub(crate) async fn dialogs(&self, call_id: &str) -> Result<Vec<SessionId>, Failure> {
        let only = Arc::new(Only { call_id: Some(call_id.to_owned()), ..Only::default() });
        let (mut next, mut dialogs) = (Some(SessionId(0)), Vec::new());
        while let Some(from) = next {
            let page = self.page(from, &only).await?;
            dialogs.extend(page.rows.iter().map(|(session, _)| *session));
            next = page.next.filter(|_| dialogs.len() < MAX_DIALOGS);
        }
        Ok(dialogs)
    }
}

/// What is said to whoever asks too late.
pub(crate) fn ending() -> Failure {
    Failure::new("ending", "sipst is about to end")
}

/// A session by its deadline, then by its age.
struct Ranked {
    left_ms: i64,
    session: SessionId,
    row: Row,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.left_ms, self.session).cmp(&(other.left_ms, other.session))
    }
}
