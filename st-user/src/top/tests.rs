//! What is on the screen, and what keys and time do to it.

use std::time::Duration;

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};
use serde_json::{Value, json};

use super::{
    draw,
    look::{self, Look},
    state::{After, Pane, Report, Screen, Sort},
};
use crate::control::protocol::{Call, Order, Row};

const PLAIN: Look = Look { colour: false, unicode: true };
const ASCII: Look = Look { colour: false, unicode: false };
const COLOUR: Look = Look { colour: true, unicode: true };

fn row(call_id: &str, state: &str, left_s: Option<f64>) -> Row {
    let timed = left_s.is_some();
    serde_json::from_value(json!({
        "call_id": call_id, "local_tag": "srv1", "remote_tag": "peer1",
        "server": "192.0.2.1:5060", "peer": "203.0.113.7:5060",
        "trunk": "carrier", "action": "refresh", "state": state, "caller": "peer",
        "started": "2026-03-01T09:00:00.000000Z", "age_s": 900, "heard": "2026-03-01T09:14:30.000000Z",
        "interval_s": timed.then_some(90), "refresher": timed.then_some("server"),
        "act": timed.then_some("2026-03-01T09:15:15.000000Z"), "due_s": left_s.map(|left| left - 15.0),
        "deadline": timed.then_some("2026-03-01T09:15:30.000000Z"), "expires": timed.then_some("2026-03-01T09:16:00.000000Z"),
        "left_s": left_s,
    }))
    .unwrap()
}

fn status(rows: &[Row], started: &str) -> Value {
    let mut states = serde_json::Map::new();
    for row in rows {
        let count = states.get(&row.state).and_then(Value::as_u64).unwrap_or_default();
        states.insert(row.state.clone(), (count + 1).into());
    }
    json!({
        "version": "0.1.0", "pid": 1, "started": started, "uptime_s": 11_520, "interfaces": ["eth0", "eth1"],
        "open_breakers": 0, "reload": null,
        "alerts": { "count": 3, "last": {
            "time": "2026-03-01T09:12:00.000001Z", "event": "refresh_failed", "reason": "no_answer", "call_id": "a84b4c76e66710",
        } },
        "sessions": { "states": states, "held": 1, "unsure": 0 },
    })
}

fn report(rows: Vec<Row>) -> Report {
    let status = status(&rows, "2026-03-01T06:00:00.000000Z");
    Report { status, found: Some(rows.len() as u64), rows, more: false, calls: Vec::new() }
}

fn some() -> Vec<Row> {
    let mut held = row("b-held@example", "running", Some(45.0));
    (held.held, held.proven) = (true, true);
    vec![
        row("c-dying@example", "expired", Some(-5.0)),
        row("a84b4c76e66710", "expiring", Some(8.0)),
        row("d-late", "overdue", Some(20.0)),
        held,
        row("e-untimed", "untimed", None),
    ]
}

fn screen(rows: Vec<Row>) -> Screen {
    let mut screen = Screen::new(500, "");
    screen.take(Ok(report(rows)), Duration::ZERO);
    screen
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn drawn(screen: &mut Screen, now: Duration, look: Look, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(screen, now, look, frame.buffer_mut())).unwrap();
    terminal
}

fn lines(screen: &mut Screen, now: Duration, look: Look, width: u16, height: u16) -> Vec<String> {
    look::text(drawn(screen, now, look, width, height).backend().buffer()).lines().map(str::to_owned).collect()
}

fn press(screen: &mut Screen, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            '⇟' => KeyCode::PageDown,
            '⇞' => KeyCode::PageUp,
            c => KeyCode::Char(c),
        };
        assert_eq!(screen.key(KeyEvent::new(code, KeyModifiers::NONE), Duration::ZERO), After::GoOn);
    }
}

fn selected(screen: &Screen) -> Option<&str> {
    screen.call().map(|(row, _)| row.call_id.as_str())
}

/// The Call-IDs in the order of the screen.
fn order(screen: &mut Screen) -> Vec<String> {
    screen.window(1_000).0.into_iter().map(|row| row.call_id.clone()).collect()
}

#[test]
fn on_80_by_24_without_colour_each_call_has_a_line_with_its_state_as_a_word() {
    let lines = lines(&mut screen(some()), Duration::ZERO, ASCII, 80, 24);
    assert_eq!(lines.len(), 24);
    assert_eq!(
        lines[..9],
        [
            "sipst 0.1.0  eth0, eth1  up 3h12m                                    by deadline",
            "5 calls: 1 expired, 1 expiring, 1 overdue, 1 running, 1 untimed; 1 held",
            "3 alerts, the last 09:12:00Z refresh_failed no_answer a84b4c76e66710",
            "     LEFT          STATE      FLG REFR.  PEER            CALL-ID",
            ">     -5s ........ expired        server 203.0.113.7     c-dying@example",
            "       8s ##...... expiring       server 203.0.113.7     a84b4c76e66710",
            "      20s ###..... overdue        server 203.0.113.7     d-late",
            "      45s ######.. running    h+  server 203.0.113.7     b-held@example",
            "        -          untimed        -      203.0.113.7     e-untimed",
        ]
    );
    assert_eq!(lines[23], "q quit  ? help  p pause  / filter  s sort  enter all about it  esc back");
}

#[test]
fn without_colour_there_is_none_and_with_it_each_state_has_its_own() {
    let buffer = |look| drawn(&mut screen(some()), Duration::ZERO, look, 80, 24).backend().buffer().clone();
    let plain = buffer(PLAIN);
    assert!(plain.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    let coloured = buffer(COLOUR);
    let states: Vec<Color> = (4..9).map(|y| coloured[(19, y)].fg).collect();
    assert_eq!(states, [Color::Red, Color::LightRed, Color::Yellow, Color::Green, Color::DarkGray]);
    assert_eq!(look::text(&plain), look::text(&coloured));
    // The selected call shows by more than the pointer.
    assert!(
        plain[(60, 4)].modifier.contains(Modifier::REVERSED) && !plain[(60, 5)].modifier.contains(Modifier::REVERSED)
    );
    assert!(!plain[(10, 4)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn the_time_left_runs_down_between_two_reports_and_the_bar_with_it() {
    let mut screen = screen(vec![row("a", "running", Some(60.0))]);
    let mut seen = Vec::new();
    for second in [0, 10, 30, 59, 60, 62] {
        let lines = lines(&mut screen, at(second), ASCII, 80, 24);
        seen.push(lines[4][2..18].trim().to_owned());
    }
    assert_eq!(seen, ["1m00s ########", "50s #######.", "30s ####....", "1s #.......", "0s ........", "-2s ........"]);
}

#[test]
fn a_larger_screen_shows_more_of_each_call_and_what_happened_in_the_selected_one() {
    let small = lines(&mut screen(some()), Duration::ZERO, PLAIN, 80, 24);
    assert!(!small.iter().any(|line| line.contains("must refresh")));
    let mut large = screen(some());
    let lines = lines(&mut large, Duration::ZERO, PLAIN, 160, 45);
    assert!(lines[3].contains("TRUNK") && lines[3].contains("SERVER") && lines[3].contains("AGE"), "{}", lines[3]);
    assert!(lines[4].contains("192.0.2.1:5060        203.0.113.7:5060"), "{}", lines[4]);
    assert!(
        lines.iter().any(|line| line.contains("90 s: the server must refresh by 09:15:15Z, 20s ago")),
        "{lines:#?}"
    );
    assert_eq!(large.wanted().call_id.as_deref(), Some("c-dying@example"));
    for width in [100, 120, 150, 250] {
        let lines = self::lines(&mut screen(some()), Duration::ZERO, PLAIN, width, 30);
        assert!(lines[3].contains("TRUNK") && lines[5].ends_with("a84b4c76e66710"), "{width}: {}", lines[5]);
    }
}

#[test]
fn no_size_no_call_and_no_text_breaks_the_screen() {
    let mut rows = some();
    for call_id in [
        "呼叫-呼叫-呼叫-呼叫-呼叫-呼叫@例え.example",
        "e\u{301}\u{301}\u{200b}\u{1f469}\u{200d}\u{1f692}",
        "\u{1b}[2J\u{7}",
        "",
    ] {
        rows.push(row(call_id, "running", Some(1e12)));
    }
    rows.push(row(&"x".repeat(5_000), "a-state-of-a-later-version", Some(f64::MIN)));
    rows.push(Row {
        trunk: "\u{202e}trunk".repeat(50),
        peer: "[2001:db8::1234:5678:9abc]:65535".parse().unwrap(),
        ..row("v6", "ended", Some(0.0))
    });
    for look in [PLAIN, ASCII, COLOUR] {
        for (width, height) in [(0, 0), (1, 1), (39, 7), (40, 8), (63, 9), (80, 24), (100, 31), (131, 40), (300, 100)] {
            for pane in ["", "\n", "\n\n", "/x", "?"] {
                let mut screen = screen(rows.clone());
                press(&mut screen, pane);
                for step in 0..3 {
                    let lines = lines(&mut screen, at(step as u64), look, width, height);
                    assert!(!lines.concat().contains(['\u{1b}', '\u{7}', '\u{202e}']), "{lines:#?}");
                    press(&mut screen, if pane == "/x" { "x" } else { "↓↓↓" });
                }
            }
        }
    }
    assert_eq!(lines(&mut screen(rows), Duration::ZERO, ASCII, 39, 7)[0], "40x8 at least");
}

#[test]
fn a_long_call_id_keeps_its_end_and_the_list_says_how_much_it_leaves_out() {
    let long = format!("{}@sbc1.example", "0123456789abcdef".repeat(3));
    let mut screen = Screen::new(2, "");
    let report = Report {
        found: Some(1_000_000),
        more: true,
        ..report(vec![row(&long, "running", Some(9.0)), row("b", "running", Some(10.0))])
    };
    screen.take(Ok(report), Duration::ZERO);
    let lines = lines(&mut screen, Duration::ZERO, PLAIN, 80, 24);
    assert!(lines[4].ends_with("0123456789abcde…example"), "{}", lines[4]);
    assert!(lines[1].ends_with("(first 2 of 1000000 listed)"), "{}", lines[1]);
    assert_eq!((screen.wanted().limit, screen.wanted().order), (2, Order::Deadline));
}

#[test]
fn an_empty_list_says_whether_there_are_no_calls_or_none_with_these_words() {
    let mut screen = screen(Vec::new());
    assert_eq!(lines(&mut screen, Duration::ZERO, ASCII, 80, 24)[5], "  no calls");
    press(&mut screen, "/nobody\n");
    let lines = lines(&mut screen, Duration::ZERO, ASCII, 80, 24);
    assert_eq!(lines[5], "  no call has \"nobody\"");
    assert!(lines[0].ends_with("only \"nobody\"  by deadline"), "{}", lines[0]);
}

#[test]
fn the_selection_keeps_to_its_call_while_others_come_and_go() {
    let mut screen = screen(some());
    press(&mut screen, "↓↓");
    assert_eq!(selected(&screen), Some("d-late"));
    let mut rows = some();
    rows.insert(0, row("new", "expired", Some(-60.0)));
    screen.take(Ok(report(rows.clone())), at(1));
    assert_eq!(selected(&screen), Some("d-late"));
    rows.retain(|row| row.call_id != "d-late");
    screen.take(Ok(report(rows)), at(2));
    assert_eq!(selected(&screen), Some("b-held@example"), "the next one takes its place");
    screen.take(Ok(report(Vec::new())), at(3));
    assert_eq!(selected(&screen), None);
}

#[test]
fn the_selected_call_is_always_among_those_that_are_shown() {
    let rows = (0..200).map(|at| row(&format!("call-{at:03}"), "running", Some(f64::from(at)))).collect();
    let mut screen = screen(rows);
    for (keys, expected) in
        [("↓", 1), ("⇟", 20), ("⇟⇟⇟", 77), ("⇞", 58), ("G", 199), ("↓", 199), ("↑", 198), ("g", 0), ("↑", 0)]
    {
        press(&mut screen, keys);
        assert_eq!(selected(&screen), Some(format!("call-{expected:03}").as_str()), "{keys}");
        let lines = lines(&mut screen, Duration::ZERO, ASCII, 80, 24);
        assert!(
            lines.iter().any(|line| line.starts_with('>') && line.ends_with(&format!("call-{expected:03}"))),
            "{lines:#?}"
        );
        assert!(lines[4..23].iter().all(|line| line.contains("call-")), "no line is left empty: {lines:#?}");
    }
}

#[test]
fn calls_are_sorted_by_what_is_chosen_and_then_by_deadline() {
    let mut rows = vec![
        row("late-running", "running", Some(50.0)),
        row("early-running", "running", Some(3.0)),
        row("overdue", "overdue", Some(20.0)),
        row("untimed", "untimed", None),
    ];
    rows[2].trunk = "another".into();
    rows[3].started = "2026-03-01T08:00:00.000000Z".into();
    let mut screen = screen(rows);
    let by = |screen: &mut Screen, sort, expected: [&str; 4]| {
        assert_eq!((screen.sort, order(screen)), (sort, expected.map(str::to_owned).to_vec()));
        press(screen, "s");
    };
    by(&mut screen, Sort::Deadline, ["early-running", "overdue", "late-running", "untimed"]);
    by(&mut screen, Sort::State, ["overdue", "early-running", "late-running", "untimed"]);
    by(&mut screen, Sort::Trunk, ["overdue", "early-running", "late-running", "untimed"]);
    // The oldest of all calls are asked for, not the oldest of those with the nearest deadlines.
    assert_eq!(screen.wanted().order, Order::Age);
    by(&mut screen, Sort::Age, ["untimed", "late-running", "early-running", "overdue"]);
    assert_eq!((screen.sort, screen.wanted().order), (Sort::Deadline, Order::Deadline));
}

#[test]
fn what_is_typed_filters_at_once_and_is_asked_of_the_daemon() {
    let mut screen = screen(some());
    press(&mut screen, "/");
    for (typed, shown) in
        [("e", 5), ("X", 3), ("pir", 2), ("\u{8}\u{8}\u{8}", 3), ("nd", 0), ("\u{8}\u{8}\u{8}\u{8}held CARR", 1)]
    {
        press(&mut screen, typed);
        assert_eq!(screen.listed(), shown, "{:?}", screen.filter);
        assert_eq!(screen.wanted().text, screen.filter);
    }
    let typing = lines(&mut screen, Duration::ZERO, ASCII, 80, 24);
    assert!(typing[23].starts_with("filter: held CARR_"), "{}", typing[23]);
    // Letters that are keys elsewhere are letters here; Enter ends that.
    press(&mut screen, "\nq".trim_end_matches('q'));
    assert!(!screen.typing);
    press(&mut screen, "/q");
    assert_eq!((screen.filter.as_str(), screen.typing), ("held CARRq", true));
    press(&mut screen, "\u{1b}");
    assert_eq!((screen.filter.as_str(), screen.typing, screen.listed()), ("", false, 5));
    press(&mut screen, &format!("/{}", "y".repeat(10_000)));
    assert_eq!(screen.filter.len(), 128);
}

#[test]
fn while_it_is_paused_nothing_moves_and_then_all_that_came_meanwhile_is_there() {
    let mut screen = screen(vec![row("a", "running", Some(60.0))]);
    screen.key(KeyEvent::new(KeyCode::Char('p'), KeyModifiers::NONE), at(10));
    assert!(screen.wanted().paused);
    screen.take(Ok(report(vec![row("a", "running", Some(30.0)), row("b", "running", Some(31.0))])), at(30));
    let paused = lines(&mut screen, at(35), ASCII, 80, 24);
    assert!(paused[4].starts_with(">     50s") && !paused[5].contains('b'), "{paused:#?}");
    assert!(paused[0].contains("PAUSED") && paused[23].contains("p go on"));
    // What cannot wait is said all the same.
    screen.take(Err("it is gone".into()), at(40));
    assert!(lines(&mut screen, at(42), ASCII, 80, 24)[2].starts_with("NO ANSWER for 2s, trying again: it is gone"));
    screen.key(KeyEvent::new(KeyCode::Char(' '), KeyModifiers::NONE), at(50));
    assert!(!screen.wanted().paused);
    screen.take(Ok(report(vec![row("b", "running", Some(31.0))])), at(51));
    assert!(lines(&mut screen, at(51), ASCII, 80, 24)[4].ends_with(" b"));
}

#[test]
fn a_daemon_that_is_gone_and_one_that_comes_after_it_are_told_of() {
    let mut screen = screen(some());
    screen.take(Err("sipst has ended".into()), at(5));
    screen.take(Err("no sipst runs here".into()), at(6));
    let gone = lines(&mut screen, at(9), ASCII, 80, 24);
    assert_eq!(gone[2], "NO ANSWER for 4s, trying again: no sipst runs here");
    assert!(gone[5].contains(" -1s "), "the calls go on towards their ends: {}", gone[5]);
    let another = Report { status: status(&some(), "2026-03-01T09:20:00.000000Z"), ..report(some()) };
    screen.take(Ok(another.clone()), at(12));
    let back = lines(&mut screen, at(13), ASCII, 80, 24);
    assert!(back[2].starts_with("sipst was restarted; 3 alerts"), "{}", back[2]);
    screen.take(Ok(another), at(30));
    assert!(lines(&mut screen, at(30), ASCII, 80, 24)[2].starts_with("3 alerts"));
}

#[test]
fn all_about_a_call_is_shown_below_then_on_the_whole_screen_and_can_be_gone_through() {
    let mut screen = screen(some());
    press(&mut screen, "↓\n");
    assert_eq!(screen.wanted().call_id.as_deref(), Some("a84b4c76e66710"));
    let asked = lines(&mut screen, Duration::ZERO, ASCII, 80, 24);
    assert!(asked.iter().any(|line| line == "asking what happened in it"), "{asked:#?}");
    let timeline: Vec<Value> = (0..50)
        .map(|at| json!({"time": format!("2026-03-01T09:{at:02}:00.000001Z"), "event": "session_refreshed", "by": "server", "method": "UPDATE"}))
        .collect();
    let call = Call {
        row: row("a84b4c76e66710", "expiring", Some(8.0)),
        would_send: Some("UPDATE".into()),
        would_not: None,
        timeline,
        kept_since: "2026-03-01T06:00:00.000000Z".into(),
    };
    screen.take(Ok(Report { calls: vec![call], ..report(some()) }), at(1));
    let open = lines(&mut screen, at(1), ASCII, 100, 24);
    let has = |lines: &[String], text: &str| lines.iter().any(|line| line.contains(text));
    assert!(has(&open, "deadline 09:15:30Z, in 8s: from then on the peer may hang up"), "{open:#?}");
    assert!(has(&open, "09:49:00.000  session_refreshed  server  method=UPDATE"), "{open:#?}");
    assert!(has(&open, "c-dying@example") && screen.pane() == Pane::Open);
    press(&mut screen, "\n");
    let whole = lines(&mut screen, at(1), ASCII, 80, 24);
    assert!(!has(&whole, "c-dying@example") && has(&whole, "sipst    it refreshes the call with UPDATE"), "{whole:#?}");
    assert!(has(&whole, "peer     203.0.113.7:5060  tag peer1") && has(&whole, "09:49:00"));
    press(&mut screen, "⇞⇞⇞⇞⇞⇞");
    let first = lines(&mut screen, at(1), ASCII, 80, 24);
    assert!(has(&first, "09:00:00") && !has(&first, "09:49:00"), "{first:#?}");
    press(&mut screen, "\u{1b}");
    assert_eq!(screen.pane(), Pane::Open);
    press(&mut screen, "\u{1b}");
    assert_eq!((screen.pane(), screen.wanted().call_id), (Pane::Closed, None));
}

#[test]
fn q_and_control_c_end_it_and_control_c_even_while_something_is_typed() {
    let key =
        |screen: &mut Screen, c, modifiers| screen.key(KeyEvent::new(KeyCode::Char(c), modifiers), Duration::ZERO);
    assert_eq!(key(&mut screen(some()), 'q', KeyModifiers::NONE), After::Quit);
    let mut typing = screen(some());
    press(&mut typing, "/");
    assert_eq!(key(&mut typing, 'c', KeyModifiers::CONTROL), After::Quit);
    assert_eq!(key(&mut typing, 'l', KeyModifiers::CONTROL), After::Afresh);
}

#[test]
fn help_covers_80_by_24_with_every_key_and_state_and_any_key_ends_it() {
    let mut screen = screen(some());
    press(&mut screen, "?");
    let help = lines(&mut screen, Duration::ZERO, ASCII, 80, 24).join("\n");
    for word in ["enter", "pause", "filter", "ctrl-c", "h held", "overdue", "untimed"] {
        assert!(help.contains(word), "{word}\n{help}");
    }
    press(&mut screen, "x");
    assert!(!lines(&mut screen, Duration::ZERO, ASCII, 80, 24).join("\n").contains("ctrl-c"));
}
