//! CSeq: the peer never sees a number twice or out of order, whatever the server's own numbers are; the server never
//! sees that anybody counted beside it.

use st_tests::agent::Profile;

use crate::plan::{Call, Plan, SOON};

fn server_from(first_cseq: u32) -> Plan {
    Plan { server: Profile { first_cseq, ..Profile::plain_server() }, ..Plan::default() }
}

/// The server sends a request of its own and must get its 200 under its own number.
fn server_asks(call: &Call, method: &'static str) {
    call.server.request(method);
    let status = call.server.answered(method, SOON);
    assert!(matches!(status, Ok(200)), "{status:?}\n{}", call.story());
}

/// The numbers of all requests but ACK as the peer read them.
fn numbers(call: &Call) -> Vec<u32> {
    let methods = ["INVITE", "UPDATE", "INFO", "OPTIONS", "BYE"];
    let mut numbers: Vec<_> = methods
        .iter()
        .flat_map(|method| call.peer.requests(method))
        .filter_map(|request| Some(request.cseq()?.number))
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn r25_digits_grow_from_9_to_10_in_place() {
    let call = server_from(7).start();
    call.refreshed(2);
    server_asks(&call, "INFO");
    assert_eq!(numbers(&call), [7, 8, 9, 10], "{}", call.story());
    call.refreshed(3);
    server_asks(&call, "OPTIONS");
    call.server_hangs_up();
    assert_eq!(numbers(&call), [7, 8, 9, 10, 11, 12, 13], "{}", call.story());
}

#[test]
fn r25_digits_grow_from_99_to_100_in_place() {
    let call = server_from(97).start();
    call.refreshed(2);
    server_asks(&call, "INFO");
    call.refreshed(3);
    call.server_hangs_up();
    assert_eq!(numbers(&call), [97, 98, 99, 100, 101, 102], "{}", call.story());
}

#[test]
fn a_server_that_begins_with_0() {
    let call = server_from(0).start();
    call.refreshed(2);
    server_asks(&call, "INFO");
    call.refreshed(3);
    call.server_hangs_up();
    assert_eq!(numbers(&call), [0, 1, 2, 3, 4, 5], "{}", call.story());
}

#[test]
fn a_called_server_that_has_sent_nothing_yet_and_begins_with_0_later() {
    let plan = Plan::peer_calls();
    let call = Plan { server: Profile { first_cseq: 0, ..plan.server.clone() }, ..plan }.start();
    call.refreshed(2);
    server_asks(&call, "INFO");
    call.refreshed(3);
    call.server_hangs_up();
    let numbers = numbers(&call);
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}\n{}", call.story());
}

#[test]
fn a_called_server_whose_first_number_is_high_is_left_alone() {
    let plan = Plan::peer_calls();
    let call = Plan { server: Profile { first_cseq: 90_000, ..plan.server.clone() }, ..plan }.start();
    call.refreshed(2);
    server_asks(&call, "INFO");
    assert_eq!(call.peer.requests("INFO")[0].cseq().unwrap().number, 90_000, "{}", call.story());
    call.refreshed(3);
    call.server_hangs_up();
}

#[test]
fn a_server_that_keeps_sending_never_collides_with_a_refresh() {
    // Thousands of numbers: they need more digits than one.
    let call = server_from(100_000).start();
    while call.peer.refreshes().len() < 3 && !call.peer.is_over() {
        server_asks(&call, "OPTIONS");
    }
    call.refreshed(2);
    call.server_hangs_up();
    let numbers = numbers(&call);
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{}", call.story());
    assert!(call.peer_answers().iter().all(|status| *status == 200), "{}", call.story());
}

#[test]
fn the_servers_own_reinvite_after_a_refresh_is_shifted_acknowledged_and_accepted() {
    let call = Plan::default().start();
    call.refreshed(1);
    call.server.reinvite();
    assert_eq!(call.server.answered("INVITE", SOON).unwrap(), 200, "{}", call.story());
    call.refreshed(4);
    call.server_hangs_up();
}

#[test]
fn a_servers_bye_whose_number_has_outgrown_its_place_is_lengthened_and_accepted() {
    // Neither a second digit nor a blank: 9 is the last number that fits in place.
    let server = Profile { first_cseq: 2, cseq_colon: ":", ..Profile::plain_server() };
    let call = Plan { server, ..Plan::default() }.start();
    call.refreshed(8);
    call.server_hangs_up();
    let numbers = numbers(&call);
    assert_eq!(*numbers.last().unwrap(), numbers[0] + call.peer.refreshes().len() as u32 + 1, "{}", call.story());
    assert!(*numbers.last().unwrap() > 9, "{}", call.story());
}
