//! The order of deadlines over more sessions than one question looks at.

use tokio::io::AsyncBufReadExt as _;

use super::*;

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (asks, mut asked) = mpsc::channel(ASKS);
        let (client, daemon) = UnixStream::pair().unwrap();
        let task = tokio::spawn(serve(daemon, asks, Place::take(&Arc::default()).unwrap()));
        let (read, mut write) = client.into_split();
        let request = format!("{{\"do\":\"sessions\",\"order\":\"deadline\",\"limit\":{LIMIT}}}\n");
        write.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(read).lines();
        let (mut sessions, mut written_out) = (Vec::new(), 0);
        let done = loop {
            tokio::select! {
                Some(ask) = asked.recv() => {
                    let Ask::Page { from, before, reply, .. } = ask else { panic!("{ask:?}") };
                    let page = page(from, before);
                    written_out += page.rows.len();
                    reply.send(page).unwrap();
                }
                line = lines.next_line() => {
                    let answer = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
                    if let Answer::Session(row) = answer {
                        sessions.push(row.call_id.parse::<u64>().unwrap());
                    } else if let Answer::Done(done) = answer {
                        break done;
                    } else {
                        panic!("{answer:?}");
                    }
                }
            }
        };
        let mut all: Vec<u64> = (0..ALL).collect();
        all.sort_by_key(|session| (deadline(*session).is_none(), deadline(*session), *session));
        assert_eq!(sessions, all[..LIMIT]);
        assert_eq!(done, json!({ "sessions": LIMIT, "more": true, "found": ALL }));
        assert!(written_out < 15 * LIMIT, "{written_out} of {ALL}");
        task.abort();
    });
}
