//! The status page in a real browser: a call comes, counts down, turns red and goes, with the keyboard alone; the ladder of a call
//! that is refreshed; nothing where it is not switched on. Leaves pictures of it in target/tmp for people to look at.

use std::{path::Path, time::Duration};

use st_tests::{
    Family, Host, Lab, Sipst,
    agent::{Agent, Profile},
    browser::{Browser, ENTER, ESCAPE},
};

use crate::{
    metrics::{ADDRESS, get},
    plan::{Plan, SOON, config},
};

const URL: &str = "http://127.0.0.1:9464/";

const PAGE: &str = "metrics: {listen: 9464, page: true}\n";

/// Long enough to look at a call in each of its states.
const INTERVAL_S: u32 = 24;

fn picture(browser: &Browser<'_>, name: &str) {
    for (size, width, height, dark) in [
        ("desk", 1200, 800, false),
        ("desk-dark", 1200, 800, true),
        ("phone", 390, 844, false),
        ("phone-dark", 390, 844, true),
    ] {
        browser.size(width, height, dark).unwrap();
        let overflow = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
        assert_eq!(browser.text(overflow).unwrap(), "false", "{name} is wider than a screen of {width}");
        browser.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}-{size}.png"))).unwrap();
    }
    browser.size(1200, 800, false).unwrap();
}

fn agents(lab: &Lab, interval_s: u32) -> (Agent, Agent) {
    let at = |host: &Host, ip, profile| Agent::start(host, (ip, 5060).into(), profile).unwrap();
    let peer = at(&lab.peer, lab.wire.b.ip(Family::V4), Profile::strict_peer(interval_s, "uac"));
    let server = at(&lab.server, lab.wire.a.ip(Family::V4), Profile::plain_server());
    (server, peer)
}

#[test]
fn a_call_appears_counts_down_turns_red_and_goes_and_the_keyboard_is_enough() {
    let lab = Lab::new().unwrap();
    let _sipst = Sipst::start(&lab.server, &(config("tc", &["action: alert"]) + PAGE)).unwrap();
    let browser = Browser::start(&lab.server).unwrap();
    browser.open(URL).unwrap();
    browser.until("document.getElementById('link').dataset.link === 'live'", SOON).unwrap();
    browser.until("!document.getElementById('none').hidden", SOON).unwrap();

    let (server, peer) = agents(&lab, INTERVAL_S);
    server.call(peer.address());
    server.established(SOON).unwrap();
    browser.until("document.querySelectorAll('#rows tr[data-state=running]').length === 1", SOON).unwrap();
    let row = browser.text("document.querySelector('#rows tr').innerText").unwrap();
    assert!(row.contains("carrier") && row.contains(&peer.address().to_string()) && row.contains("server"), "{row}");
    let ground = "getComputedStyle(document.querySelector('#rows tr')).backgroundColor";
    let calm = browser.text(ground).unwrap();
    // It counts by itself: the left is less each second, and so is the bar.
    let left = "parseInt(document.querySelector('#rows .left span').textContent)";
    let before: i64 = browser.text(left).unwrap().parse().unwrap();
    browser.until(&format!("{left} < {before}"), SOON).unwrap();
    picture(&browser, "running");

    browser.until("document.querySelectorAll('#rows tr[data-state=overdue]').length === 1", SOON).unwrap();
    assert_ne!(browser.text(ground).unwrap(), calm, "it does not turn red");
    assert_eq!(browser.text("document.getElementById('announce').textContent").unwrap(), "1 call in danger");
    assert_eq!(browser.text("document.title").unwrap(), "(1) sipst");

    // The link is reached by Tab and opened by Enter; Escape leads back to it.
    browser.run("document.querySelector('#rows a').focus();").unwrap();
    browser.press(ENTER).unwrap();
    browser.until("document.activeElement.id === 'call-title'", SOON).unwrap();
    browser.until("document.querySelectorAll('#ladder li').length > 5", SOON).unwrap();
    let ladder = browser.text("document.getElementById('ladder').innerText").unwrap();
    for line in
        ["server to peer:", "INVITE", "200 to INVITE", "session started", "refresh overdue", "the peer may hang up"]
    {
        assert!(ladder.contains(line), "{line} is not in the ladder:\n{ladder}");
    }
    picture(&browser, "overdue");
    browser.press(ESCAPE).unwrap();
    browser.until("document.activeElement.matches('#rows a')", SOON).unwrap();

    // The peer hangs up at the interval's end, for nobody has refreshed.
    browser
        .until("document.querySelectorAll('#rows tr').length === 0", SOON + Duration::from_secs(INTERVAL_S.into()))
        .unwrap();
    browser.until("!document.getElementById('none').hidden", SOON).unwrap();
    assert_eq!(browser.text("document.title").unwrap(), "sipst");
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());
}

#[test]
fn a_calls_ladder_shows_who_refreshed_it_and_text_from_outside_is_never_markup() {
    let call = Plan::default().start_with(|config| config + PAGE);
    let browser = Browser::start(&call.lab.server).unwrap();
    call.refreshed(1);
    browser.open(URL).unwrap();
    browser.until("document.querySelectorAll('#rows a').length === 1", SOON).unwrap();
    browser.run("document.querySelector('#rows a').click();").unwrap();
    let has = |text: &str| format!("document.getElementById('ladder').innerText.includes('{text}')");
    for text in ["sipst to peer", "peer to sipst", "refresh succeeded", "somebody has to act"] {
        browser.until(&has(text), SOON).unwrap();
    }
    let facts = browser.text("document.getElementById('dialogs').innerText").unwrap();
    for fact in ["the server must refresh", "refreshed by sipst before", "it refreshes the call with UPDATE"] {
        assert!(facts.contains(fact), "{fact} is not said:\n{facts}");
    }
    picture(&browser, "refreshed");

    // As a Call-ID could be.
    browser
        .run("location.hash = '#call=' + encodeURIComponent('<img src=x onerror=document.title=1>\\u202e');")
        .unwrap();
    browser.until("document.getElementById('call-title').textContent.includes('<img src=x')", SOON).unwrap();
    browser.until("document.getElementById('call-note').textContent.includes('There is no such call')", SOON).unwrap();
    assert_eq!(browser.text("document.querySelectorAll('#call img').length").unwrap(), "0");
    assert_eq!(browser.text("document.getElementById('call-title').textContent.includes('\\u202e')").unwrap(), "false");
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());
    drop(browser);
    call.server_hangs_up();
}

#[test]
fn without_page_true_the_metrics_address_shows_no_calls_and_a_reload_switches_it_on() {
    let lab = Lab::new().unwrap();
    let host = &lab.server;
    let plain = config("tc", &["action: alert"]);
    let _sipst = Sipst::start(host, &(plain.clone() + "metrics: {listen: 9464}\n")).unwrap();
    let status = |path: &str| get(host, ADDRESS, path).unwrap().0;
    assert_eq!((status("/metrics"), status("/"), status("/live")), (200, 404, 404));
    host.file("sipst.yaml", format!("{plain}{PAGE}\nstate_dir: /run/state\n")).unwrap();
    let (code, out, errors) = Sipst::command(host, &["reload"]).unwrap();
    assert_eq!(code, Some(0), "{out}{errors}");
    assert!(out.contains("the status page: on"), "{out}");
    assert_eq!((status("/metrics"), status("/")), (200, 200));
}
