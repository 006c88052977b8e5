//! Lines that wait for the thread that prints them: one buffer for both, so that a line is written once and costs no memory of its own,
//! and that thread is woken up for the first of many.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How many lines wait for a slow reader; past that the newest are dropped and counted.
pub(super) const QUEUE: usize = 4096;

/// How long the first line waits for others, so that many events cost one write and one wake-up, and how many bytes are not waited with.
pub(super) const LINGER: Duration = Duration::from_millis(20);
pub(super) const WRITTEN_AT_ONCE: usize = 64 << 10;

/// What is written at once, in the main; it is whole lines.
#[derive(Default)]
struct Block {
    text: String,
    lines: usize,
}

/// What both sides know.
#[derive(Default)]
struct Waiting {
    /// In their order. Only the last one may grow, and none is empty.
    blocks: VecDeque<Block>,
    /// In all of them.
    lines: usize,
    /// What was dropped since that was last told.
    dropped: u64,
    /// Written out, to be filled again.
    spare: String,
    /// Nothing more comes.
    ended: bool,
    /// Nobody takes anything any more.
    left: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to be taken, at once.
    woken: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that lines are put in at; without it nothing more comes.
pub(super) struct Sender(Arc<Shared>);

/// The end that they are taken out at.
pub(super) struct Receiver(Arc<Shared>);

/// Both ends.
pub(super) fn lines() -> (Sender, Receiver) {
    let shared = Arc::<Shared>::default();
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl Sender {
    /// Has a line written behind those that wait, its end included. Never waits for whoever prints them.
    pub(super) fn put(&self, write: impl FnOnce(&mut String) -> io::Result<()>) {
        let mut waiting = self.0.lock();
        if waiting.left {
            return;
        }
        if waiting.lines >= QUEUE {
            waiting.dropped += 1;
            return;
        }
        if waiting.blocks.back().is_none_or(|block| block.text.len() >= WRITTEN_AT_ONCE) {
            let text = std::mem::take(&mut waiting.spare);
            waiting.blocks.push_back(Block { text, lines: 0 });
        }
        let was_empty = waiting.lines == 0;
        let Some(block) = waiting.blocks.back_mut() else { return };
        let before = block.text.len();
        if write(&mut block.text).is_err() {
            // What cannot be written is no event that there is.
            block.text.truncate(before);
            if before == 0 {
                waiting.blocks.pop_back();
            }
            return;
        }
        block.lines += 1;
        let is_full = before < WRITTEN_AT_ONCE && block.text.len() >= WRITTEN_AT_ONCE;
        waiting.lines += 1;
        drop(waiting);
        if was_empty || is_full {
            self.0.woken.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.woken.notify_one();
    }
}

impl Receiver {
    /// The next lines, whole ones, and how many were dropped since this was last asked; `None`: there are none left, and none will come.
    /// The first line waits a little for others, unless there is enough to be written, or nothing more comes. `written` is filled anew.
    pub(super) fn take(&self, mut written: String) -> Option<(String, u64)> {
        written.clear();
        let mut waiting = self.0.lock();
        waiting.spare = written;
        let empty = |waiting: &mut Waiting| waiting.lines == 0 && !waiting.ended;
        waiting = self.0.woken.wait_while(waiting, empty).unwrap_or_else(PoisonError::into_inner);
        let few = |waiting: &mut Waiting| {
            !waiting.ended && waiting.blocks.front().is_some_and(|block| block.text.len() < WRITTEN_AT_ONCE)
        };
        let lingered = self.0.woken.wait_timeout_while(waiting, LINGER, few);
        waiting = lingered.unwrap_or_else(PoisonError::into_inner).0;
        let Block { text, lines } = waiting.blocks.pop_front()?;
        waiting.lines -= lines;
        Some((text, std::mem::take(&mut waiting.dropped)))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.left = true;
        waiting.blocks = VecDeque::new();
        waiting.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    fn put(sender: &Sender, text: &str) {
        sender.put(|line| {
            line.push_str(text);
            line.push('\n');
            Ok(())
        });
    }

    #[test]
    fn lines_come_in_their_order_and_whole_whatever_is_written_at_once() {
        let (sender, receiver) = lines();
        let long = "x".repeat(WRITTEN_AT_ONCE / 3);
        let sent: String = (0..10).map(|number| format!("{number}{long}\n")).collect();
        for number in 0..10 {
            put(&sender, &format!("{number}{long}"));
        }
        drop(sender);
        let (mut taken, mut text) = (String::new(), String::new());
        while let Some((next, dropped)) = receiver.take(text) {
            assert!(next.ends_with('\n') && next.len() < WRITTEN_AT_ONCE + long.len() + 2);
            assert_eq!(dropped, 0);
            taken.push_str(&next);
            text = next;
        }
        assert_eq!(taken, sent);
    }

    #[test]
    fn what_cannot_be_written_leaves_no_half_of_a_line() {
        let (sender, receiver) = lines();
        let fail = |sender: &Sender| {
            sender.put(|line| {
                line.push_str("half");
                Err(io::ErrorKind::InvalidData.into())
            });
        };
        fail(&sender);
        put(&sender, "a");
        fail(&sender);
        put(&sender, "b");
        drop(sender);
        assert_eq!(receiver.take(String::new()), Some(("a\nb\n".into(), 0)));
        assert_eq!(receiver.take(String::new()), None);
    }

    #[test]
    fn past_the_limit_the_newest_are_dropped_and_told_once() {
        let (sender, receiver) = lines();
        (0..QUEUE + 3).for_each(|number| put(&sender, &number.to_string()));
        let (text, dropped) = receiver.take(String::new()).unwrap();
        assert_eq!((text.lines().next(), dropped), (Some("0"), 3));
        put(&sender, "after");
        drop(sender);
        let (text, dropped) = receiver.take(text).unwrap();
        assert_eq!((text.lines().last(), dropped), (Some("after"), 0));
    }

    #[test]
    fn whoever_takes_is_woken_up_by_a_line_and_by_the_end_and_nobody_waits_once_it_is_gone() {
        let (sender, receiver) = lines();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let first = receiver.take(String::new());
            tell.send(()).unwrap();
            (first, receiver.take(String::new()))
        });
        put(&sender, "a");
        told.recv().unwrap();
        drop(sender);
        assert_eq!(thread.join().unwrap(), (Some(("a\n".into(), 0)), None));

        let (sender, receiver) = lines();
        drop(receiver);
        (0..2 * QUEUE).for_each(|_| put(&sender, "a"));
        assert_eq!(sender.dropped(), 0, "what nobody reads is not told as lost");
    }
}
