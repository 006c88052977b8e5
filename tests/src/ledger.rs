//! What a capture shows of a dialog's numbers and answers, whoever the two ends are.

use std::{collections::HashMap, fmt::Write as _, net::IpAddr};

use anyhow::{Result, bail, ensure};

use crate::{Tap, agent::Message};

/// How the branches of sipst's own requests begin.
pub const OWN_BRANCH: &str = "z9hG4bKsipst";

/// All SIP messages between two addresses, in order.
pub struct Ledger {
    messages: Vec<(IpAddr, Message)>,
}

impl Ledger {
    /// From what a tap has seen; an error where a packet is not whole, or is not SIP.
    pub fn of(tap: &Tap) -> Result<Self> {
        let mut messages = Vec::new();
        for datagram in tap.datagrams()? {
            // Keep-alives and media.
            let is_sip = [datagram.from, datagram.to].iter().any(|address| address.port() == 5060);
            if is_sip && !datagram.payload.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
                messages.push((datagram.from.ip(), Message::parse(&datagram.payload)?));
            }
        }
        Ok(Self { messages })
    }

    /// The requests of one side, without copies, and without ACK and CANCEL, whose numbers are not their own.
    pub fn requests(&self, from: IpAddr) -> Vec<&Message> {
        let mut seen = HashMap::new();
        let requests = self.messages.iter().filter(|(source, message)| *source == from && has_own_number(message));
        requests.map(|(_, message)| message).filter(|message| seen.insert(key(message), ()).is_none()).collect()
    }

    /// How many re-INVITEs and UPDATEs sipst has sent in this side's name.
    pub fn refreshes(&self, from: IpAddr) -> usize {
        self.requests(from).into_iter().filter(|request| is_own(request)).count()
    }

    /// Whether anything of sipst's went by, or an answer to it.
    pub fn has_own(&self) -> bool {
        self.messages.iter().any(|(_, message)| is_own(message))
    }

    /// Nothing odd: every request of the `server`'s side got a 2xx, nobody refused anything, no number came twice, none went
    /// down, and each answer has the number of its request.
    pub fn is_clean(&self, server: IpAddr) -> Result<()> {
        let mut highest = HashMap::new();
        for request in self.requests(server) {
            let number = request.cseq().map_or(0, |cseq| cseq.number);
            let dialog = (request.header("Call-ID"), request.param("From", "tag"));
            let before = highest.insert(dialog, number);
            ensure!(before.is_none_or(|before| number > before), "{request} after {before:?}\n{}", self.story());
            let answers = self.messages.iter().filter(|(_, message)| answers(message, request));
            let mut taken = false;
            for (_, answer) in answers {
                ensure!(answer.cseq() == request.cseq(), "{answer} answers {request}\n{}", self.story());
                taken |= answer.status().is_some_and(|status| (200..300).contains(&status));
            }
            ensure!(taken, "no 2xx to {request}\n{}", self.story());
        }
        match self.messages.iter().find(|(_, message)| message.status().is_some_and(|status| status >= 300)) {
            Some((from, refusal)) => bail!("{from} said {refusal}\n{}", self.story()),
            None => Ok(()),
        }
    }

    /// All messages, a line each.
    pub fn story(&self) -> String {
        self.messages.iter().fold(String::new(), |mut text, (from, message)| {
            let own = if is_own(message) { "  sipst's" } else { "" };
            let _ = writeln!(text, "{from:>15}  {message}{own}");
            text
        })
    }
}

fn has_own_number(message: &Message) -> bool {
    message.method().is_some_and(|method| !matches!(method, "ACK" | "CANCEL"))
}

/// A transaction, which copies share. Net::SIP's requests share a branch with others of other methods.
fn key(message: &Message) -> (Option<&str>, Option<&str>) {
    (message.header("Via"), message.header("CSeq"))
}

fn answers(message: &Message, request: &Message) -> bool {
    let method = message.cseq().map(|cseq| cseq.method);
    message.status().is_some() && branch(message) == branch(request) && method.as_deref() == request.method()
}

/// The topmost Via's. SIPp answers with all of them in one line.
fn branch(message: &Message) -> Option<&str> {
    message.param("Via", "branch")?.split(',').next()
}

fn is_own(message: &Message) -> bool {
    branch(message).is_some_and(|branch| branch.starts_with(OWN_BRANCH))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn ask(number: u32, branch: &str) -> (IpAddr, Message) {
        let request = Message::request("INFO", "sip:a@10.0.0.2")
            .with("Via", format_args!("SIP/2.0/UDP 10.0.0.1;branch={branch}"))
            .with("From", "<sip:b@10.0.0.1>;tag=b")
            .with("To", "<sip:a@10.0.0.2>;tag=a")
            .with("Call-ID", "1")
            .with("CSeq", format_args!("{number} INFO"));
        (SERVER, request)
    }

    fn answer(asked: &(IpAddr, Message), status: u16) -> (IpAddr, Message) {
        (PEER, Message::response(&asked.1, status, "Said"))
    }

    fn verdict(exchanges: &[((IpAddr, Message), u16)]) -> bool {
        let messages = exchanges.iter().flat_map(|(asked, status)| [asked.clone(), answer(asked, *status)]).collect();
        Ledger { messages }.is_clean(SERVER).is_ok()
    }

    #[test]
    fn numbers_that_rise_and_copies_are_clean_and_nothing_else_is() {
        assert!(verdict(&[(ask(1, "z9hG4bKa"), 200), (ask(1, "z9hG4bKa"), 200), (ask(3, "z9hG4bKb"), 200)]));
        assert!(!verdict(&[(ask(1, "z9hG4bKa"), 200), (ask(1, "z9hG4bKb"), 200)]), "a number twice");
        assert!(!verdict(&[(ask(2, "z9hG4bKa"), 200), (ask(1, "z9hG4bKb"), 200)]), "a number that goes down");
        assert!(!verdict(&[(ask(1, "z9hG4bKa"), 500)]), "a refusal");
        assert!(!verdict(&[(ask(1, "z9hG4bKa"), 100)]), "no final answer");
        let messages = vec![ask(1, "z9hG4bKa"), answer(&ask(2, "z9hG4bKa"), 200)];
        assert!(Ledger { messages }.is_clean(SERVER).is_err(), "an answer to another number");
    }
}
