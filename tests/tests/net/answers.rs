//! Answers to a refresh other than 200, and none at all.

use st_tests::agent::{Profile, Refusal, Update};

use crate::plan::{Plan, SOON};

fn peer(interval_s: u32, refuse: Vec<Refusal>) -> Profile {
    Profile { refuse, ..Profile::strict_peer(interval_s, "uac") }
}

/// The peer refuses the first refresh; the call lives all the same.
fn survives(peer: Profile, rules: Vec<&'static str>) -> crate::plan::Call {
    let call = Plan { peer, rules, ..Plan::default() }.start();
    call.refreshed(3);
    call.sipst.event("refresh_succeeded", SOON).unwrap();
    call.server_hangs_up();
    call
}

fn usual() -> Vec<&'static str> {
    vec!["action: refresh", "min_se: 2s"]
}

#[test]
fn f7_an_update_that_is_listed_and_refused_is_followed_by_a_reinvite() {
    for status in [405, 501] {
        let profile = Profile { update: Update::ListAndRefuse(status), ..Profile::strict_peer(10, "uac") };
        let call = survives(profile, usual());
        assert_eq!(call.peer.requests("UPDATE").len(), 1, "{}", call.story());
    }
}

#[test]
fn f7_an_update_that_is_ignored_is_followed_by_a_reinvite_in_time() {
    let profile = Profile { update: Update::ListAndIgnore, ..Profile::strict_peer(12, "uac") };
    survives(profile, usual());
}

#[test]
fn r36_a_422_raises_the_interval() {
    let call = survives(peer(10, vec![Refusal::new(422).with("Min-SE", "12")]), usual());
    let second = &call.peer.refreshes()[1];
    assert_eq!(second.session_expires().map(|(seconds, _)| seconds), Some(12), "{}", call.story());
    assert_eq!(second.header("Min-SE"), Some("12"), "{}", call.story());
}

#[test]
fn r30_a_491_is_waited_out() {
    survives(peer(16, vec![Refusal::new(491)]), usual());
}

#[test]
fn r35_a_500_with_retry_after_is_waited_out() {
    survives(peer(12, vec![Refusal::new(500).with("Retry-After", "1")]), usual());
}

#[test]
fn f17_a_challenge_is_answered_with_the_trunks_credentials() {
    for (status, challenge, answer) in
        [(401, "WWW-Authenticate", "Authorization"), (407, "Proxy-Authenticate", "Proxy-Authorization")]
    {
        let value = r#"Digest realm="carrier", nonce="84a4cc6f3082121f32b42a2187831a9e", algorithm=MD5, qop="auth""#;
        let refuse = vec![Refusal::new(status).with(challenge, value)];
        let rules =
            vec!["action: refresh", "min_se: 2s", "credentials: { username: line1, password_file: /run/carrier.pw }"];
        let call = Plan { peer: peer(10, refuse), rules, ..Plan::default() }.start();
        call.refreshed(2);
        let second = &call.peer.refreshes()[1];
        let header = second.header(answer).unwrap_or_else(|| panic!("no {answer}\n{}", call.story()));
        for part in
            ["username=\"line1\"", "realm=\"carrier\"", "nonce=\"84a4cc6f3082121f32b42a2187831a9e\"", "response="]
        {
            assert!(header.contains(part), "{header}");
        }
        call.sipst.event("refresh_succeeded", SOON).unwrap();
        call.server_hangs_up();
    }
}

#[test]
fn f17_without_credentials_a_challenge_is_an_alert() {
    let challenge = r#"Digest realm="carrier", nonce="1", algorithm=MD5"#;
    let refuse = vec![Refusal::new(401).with("WWW-Authenticate", challenge); 20];
    let call = Plan { peer: peer(10, refuse), ..Plan::default() }.start();
    let failed = call.sipst.event("refresh_failed", SOON).unwrap();
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.starts_with("challenged")), "{failed}");
    call.server_hangs_up();
}

#[test]
fn r34_a_481_is_the_end_of_trying() {
    let call = Plan { peer: peer(10, vec![Refusal::new(481); 20]), ..Plan::default() }.start();
    let failed = call.sipst.event("refresh_failed", SOON).unwrap();
    assert_eq!(failed["status"], 481, "{failed}");
    assert!(call.peer.ended(SOON).unwrap().0, "{}", call.story());
    assert_eq!(call.peer.refreshes().len(), 1, "{}", call.story());
    call.clean();
}
