//! Records that a thread of its own reads, while whoever takes them is at work on those before.

use std::{
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::mpsc::{channel, sync_channel},
    thread,
};

/// Bytes of records that are handed over at once, and how many times as many wait.
const BATCH: usize = 1 << 18;
const WAITING: usize = 2;

/// Some of them.
#[derive(Default)]
struct Batch {
    /// The key of each, and where it ends.
    ends: Vec<(u64, usize)>,
    bytes: Vec<u8>,
}

impl Batch {
    fn put(&mut self, key: u64, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push((key, self.bytes.len()));
    }

    fn take_out(&mut self, take: &mut impl FnMut(u64, &[u8])) {
        let mut begin = 0;
        for (key, end) in self.ends.drain(..) {
            take(key, &self.bytes[begin..end]);
            begin = end;
        }
        self.bytes.clear();
    }
}

/// Hands what `from` puts to `take`, in that order; what was put before a failure too. `put` says whether anybody takes it.
///
/// # Errors
/// The system has no thread left; within: what `from` says.
///
/// # Panics
/// Where `from` does.
pub(super) fn read<E: Send>(
    from: impl FnOnce(&mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), E> + Send,
    mut take: impl FnMut(u64, &[u8]),
) -> io::Result<Result<(), E>> {
    let (full, batches) = sync_channel(WAITING);
    // What was taken out is filled again.
    let (empty, emptied) = channel();
    thread::scope(|scope| {
        let read_all = move || {
            let mut batch = Batch::default();
            let read = catch_unwind(AssertUnwindSafe(|| {
                from(&mut |key, record| {
                    batch.put(key, record);
                    batch.bytes.len() < BATCH
                        || full.send(mem::replace(&mut batch, emptied.try_recv().unwrap_or_default())).is_ok()
                })
            }));
            // Where nobody takes it, nobody wants it.
            let _ = full.send(batch);
            read
        };
        let reader = thread::Builder::new().name("store-read".into()).spawn_scoped(scope, read_all)?;
        for mut batch in batches {
            batch.take_out(&mut take);
            // Where all was read, nobody fills it.
            let _ = empty.send(batch);
        }
        Ok(reader.join().flatten().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads so many records, each of as many bytes, and then ends so.
    fn records(number: u64, length: usize, end: fn() -> Result<(), &'static str>) -> (u64, Option<&'static str>) {
        let mut taken = 0;
        let read = catch_unwind(AssertUnwindSafe(|| {
            let from = |put: &mut dyn FnMut(u64, &[u8]) -> bool| {
                assert!((0..number).all(|key| put(key, &vec![key as u8; length + key as usize % 3])));
                end()
            };
            read(from, |key, record| {
                assert_eq!((key, record), (taken, &vec![key as u8; length + key as usize % 3][..]));
                taken += 1;
            })
        }));
        (taken, read.map_or(Some("panicked"), |read| read.unwrap().err()))
    }

    #[test]
    fn all_that_was_read_is_taken_in_order_however_the_reading_ends() {
        for (number, length) in [(0, 0), (1, 0), (5, 10), (5_000, 700), (7, BATCH), (3, 5 * BATCH)] {
            assert_eq!(records(number, length, || Ok(())), (number, None));
            assert_eq!(records(number, length, || Err("failed")), (number, Some("failed")));
            assert_eq!(records(number, length, || panic!("as redb may")), (number, Some("panicked")));
        }
    }

    #[test]
    fn who_panics_as_it_takes_ends_the_reading() {
        let from = |put: &mut dyn FnMut(u64, &[u8]) -> bool| -> Result<(), ()> {
            while put(1, &[0; 1_000]) {}
            Ok(())
        };
        assert!(catch_unwind(AssertUnwindSafe(|| read(from, |_, _| panic!("no use for it")))).is_err());
    }
}
