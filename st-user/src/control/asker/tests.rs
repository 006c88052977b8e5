//! The order of deadlines over more sessions than one question looks at.

use serde_json::json;
use st_core::Time;

use super::*;
use crate::control::server::{LOOKED_AT, SHOWN};

/// How many sessions there are.
const ALL: u64 = 5_000;

/// How many are asked for.
const LIMIT: usize = 100;

/// When a session's peer may hang up: in no order, some at once, and never for each tenth.
fn deadline(session: u64) -> Option<Time> {
    (!session.is_multiple_of(10)).then(|| Time::from_micros(session * 7_919 % 1_009))
}

fn row(session: u64) -> Row {
    serde_json::from_value(json!({
        "call_id": session.to_string(), "local_tag": "", "remote_tag": "", "server": "192.0.2.1:5060", "peer": "192.0.2.2:5060",
        "trunk": "", "action": "", "state": "running", "caller": "", "started": "", "age_s": 0, "heard": "",
    }))
    .unwrap()
}

/// What the daemon's loop would answer.
fn page(SessionId(from): SessionId, before: Option<Rank>) -> Page {
    let mut page = Page::default();
    for session in from..ALL {
        if page.found == LOOKED_AT || page.rows.len() == SHOWN {
            page.next = Some(SessionId(session));
            break;
        }
        page.found += 1;
        let rank = (deadline(session).is_none(), deadline(session), SessionId(session));
        if before.is_none_or(|before| rank < before) {
            page.rows.push((rank, row(session)));
        }
    }
    page
}

#[test]
fn the_nearest_deadlines_of_all_are_found_and_few_others_are_written_out_for_that() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (send, mut asks) = mpsc::channel(1);
    let (nearest, written_out) = runtime.block_on(async {
        let daemon = tokio::spawn(async move {
            let mut written_out = 0;
            while let Some(ask) = asks.recv().await {
                let Ask::Page { from, before, reply, .. } = ask else { panic!("{ask:?}") };
                let page = page(from, before);
                written_out += page.rows.len();
                reply.send(page).unwrap();
            }
            written_out
        });
        let nearest = Asker::new(send).nearest(Only::default(), LIMIT).await.unwrap();
        (nearest, daemon.await.unwrap())
    });
    let mut all: Vec<u64> = (0..ALL).collect();
    all.sort_by_key(|session| (deadline(*session).is_none(), deadline(*session), *session));
    let found: Vec<u64> = nearest.rows.iter().map(|row| row.call_id.parse().unwrap()).collect();
    assert_eq!((found.as_slice(), nearest.found), (&all[..LIMIT], ALL as usize));
    assert!(written_out < 15 * LIMIT, "{written_out} of {ALL}");
}
