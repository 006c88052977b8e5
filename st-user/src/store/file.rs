//! The file: `sessions.redb` in the state directory. Whoever has it open holds a lock on the directory.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use redb::{
    Database, DatabaseError, Range, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    StorageError, TableDefinition,
};
use st_core::engine::record::{BEFORE, COMMON, Change, TEMPLATES, UNPACKED, VERSION};

use super::{ahead, sample::Sample};

/// Its name.
pub(super) const NAME: &str = "sessions.redb";

/// The version of all that this module writes; raised with every change of it.
const FORMAT: u32 = 3;

/// Versions before, which are read, and written anew: records of [`UNPACKED`] stand in the first as they are, in the second as what they
/// differ in from a sample. So is this one with records of [`BEFORE`].
const PLAIN: u64 = 1;
const SAMPLED: u64 = 2;

/// How long another process may take to let go of the directory.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much of the file is kept in memory, in bytes.
const CACHE: usize = 32 << 20;

/// How many files that could not be read are put aside; with as many, the next one stays where it is and nothing is kept.
pub const MAX_SET_ASIDE: usize = 8;

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// What they are packed by. They have the last keys of all: among the records they would have redb fill each page by half, which it fills
/// to the end where the last key is the latest.
const PACKED_BY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("packed by");
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system says no.
    #[error("{}: {what}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What it says.
        #[source]
        source: io::Error,
    },
    /// Somebody else has the directory.
    #[error("{}: another sipst keeps its state there: give each a `state_dir` of its own", dir.display())]
    InUse {
        /// Which.
        dir: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// In words.
        why: String,
        /// One word for the name under which it is put aside.
        word: &'static str,
    },
    /// It cannot be read, and there is no place for it.
    #[error(
        "{}: {MAX_SET_ASIDE} files that could not be read are there already: look at them, and take them away",
        dir.display()
    )]
    Crowded {
        /// Which directory.
        dir: PathBuf,
    },
    /// The file cannot be written.
    #[error("{}: it cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What redb says.
        #[source]
        source: Box<redb::Error>,
    },
}

/// What the records need to be understood by a later run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Which boot of the host: sockets and kernel maps do not outlive it.
    pub boot: String,
    /// What the daemon's clock adds to `CLOCK_MONOTONIC`, in nanoseconds.
    pub offset_ns: u64,
    /// Messages that the kernel programs had no room for, as counted by then.
    pub unseen: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    database: Database,
    /// How records stand in it; `None`: as this version writes them.
    before: Option<Sample>,
    /// What stands in it of its records; `None`: what another version says of them, or nothing.
    said: Option<About>,
    /// Locked for as long as the file is open.
    _lock: File,
}

impl StateFile {
    /// Opens the file, or makes it. What an earlier run says of its records, if there was one.
    pub(super) fn open(dir: &Path) -> Result<(Self, Option<About>), StoreError> {
        let path = dir.join(NAME);
        let failed = |what| move |source| StoreError::Io { path: dir.to_owned(), what, source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("the directory cannot be made"))?;
        let lock = lock(dir)?;
        // Who calls whom is nobody else's business.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        made.map_err(|source| StoreError::Io { path: path.clone(), what: "it cannot be written", source })?;
        let database = sheltered(&path, || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE);
            builder.create(&path).map_err(|error| database_error(&path, error))
        })?;
        let mut file = Self { path, database, before: None, said: None, _lock: lock };
        let found = sheltered(&file.path, || file.about())?;
        let about = found.map(|(about, before)| {
            file.said = Some(about.clone()).filter(|_| before.is_none());
            file.before = before;
            about
        });
        Ok((file, about))
    }

    /// Puts a file that cannot be read aside: its new name.
    pub(super) fn set_aside(dir: &Path, word: &str) -> Result<PathBuf, StoreError> {
        if set_aside(dir).len() >= MAX_SET_ASIDE {
            return Err(StoreError::Crowded { dir: dir.to_owned() });
        }
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace([':', '-'], "");
        let free = |number: usize| {
            let more = if number == 0 { String::new() } else { format!("-{number}") };
            Some(dir.join(format!("{NAME}.{word}-{now}{more}"))).filter(|path| !path.exists())
        };
        let to = (0..=MAX_SET_ASIDE).find_map(free).ok_or_else(|| StoreError::Crowded { dir: dir.to_owned() })?;
        let from = dir.join(NAME);
        fs::rename(&from, &to).map_err(|source| StoreError::Io {
            path: from,
            what: "it cannot be put aside",
            source,
        })?;
        Ok(to)
    }

    /// Whether all of it has to be written anew before anything else is.
    pub(super) fn is_outdated(&self) -> bool {
        self.before.is_some()
    }

    /// What the records were written with, and how.
    fn about(&self) -> Result<Option<(About, Option<Sample>)>, StoreError> {
        let read = || -> Result<Option<[Vec<u8>; 6]>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = match transaction.open_table(ABOUT) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let names = ["format", "records", "boot", "offset_ns", "unseen", SAMPLE];
            let mut fields = names.map(|_| Vec::new());
            for (field, name) in fields.iter_mut().zip(names) {
                *field = table.get(name)?.map(|value| value.value().to_vec()).unwrap_or_default();
            }
            Ok(Some(fields))
        };
        let Some([format, records, boot, offset_ns, unseen, sample]) =
            read().map_err(|error| self.unreadable(error))?
        else {
            return Ok(None);
        };
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
        let [format, records, offset_ns, unseen] = [format, records, offset_ns, unseen].map(|field| number(&field));
        let (Some(format), Some(records)) = (format, records) else { return Err(self.damaged("no version in it")) };
        let own = (u64::from(FORMAT), u64::from(VERSION));
        let [before, unpacked] = [BEFORE, UNPACKED].map(u64::from);
        if ![own, (own.0, before), (PLAIN, unpacked), (SAMPLED, unpacked)].contains(&(format, records)) {
            let word = if format > own.0 || records > own.1 { "newer" } else { "older" };
            let why = format!("a file of version {format}.{records}; this sipst reads {}.{}", own.0, own.1);
            return Err(StoreError::Unreadable { path: self.path.clone(), why, word });
        }
        let (Ok(boot), Some(offset_ns), Some(unseen)) = (String::from_utf8(boot), offset_ns, unseen) else {
            return Err(self.damaged("not what was written"));
        };
        let before = match format {
            SAMPLED => Some(Sample::Of(sample)),
            _ => Some(Sample::None).filter(|_| (format, records) != own),
        };
        Ok(Some((About { boot, offset_ns, unseen }, before)))
    }

    /// How many records there are, but for what they are packed by.
    pub(super) fn records(&self) -> usize {
        let count = || Ok(self.database.begin_read()?.open_table(RECORDS)?.len()?);
        let counted = sheltered(&self.path, || count().map_err(|error: redb::Error| self.unreadable(error)));
        counted.ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
    }

    /// Hands all records to `take`, that of [`COMMON`] first and then what the others are packed by, which says whether they are as
    /// they were written. A thread of its own reads ahead.
    pub(super) fn read(&self, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), StoreError> {
        let mut damaged = 0_u64;
        sheltered(&self.path, || {
            let read = ahead::read(|put| self.each(put), |key, record| damaged += u64::from(!take(key, record)));
            let failed = |source| StoreError::Io { path: self.path.clone(), what: "it cannot be read", source };
            read.map_err(failed)?.map_err(|error| self.unreadable(error))
        })?;
        if damaged > 0 {
            return Err(self.damaged(&format!("{damaged} records are damaged")));
        }
        Ok(())
    }

    /// Hands all records to `take`, in that order, until it wants no more.
    fn each(&self, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(RECORDS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut take_all = |entries: Range<'_, u64, &[u8]>| -> Result<(), redb::Error> {
            for entry in entries {
                let (key, record) = entry?;
                let (key, record) = (key.value(), record.value());
                let goes_on = match &self.before {
                    None => take(key, record),
                    // One that is damaged is none, as one that is empty.
                    Some(sample) => take(key, &sample.unpack(record).unwrap_or_default()),
                };
                if !goes_on {
                    break;
                }
            }
            Ok(())
        };
        take_all(table.range(..=COMMON)?)?;
        match transaction.open_table(PACKED_BY) {
            Ok(packed_by) => take_all(packed_by.iter()?)?,
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        take_all(table.range(COMMON + 1..)?)
    }

    /// Writes changes, all or none; `fresh`: in place of all that is there. How many bytes of records.
    pub(super) fn write(&mut self, about: &About, fresh: bool, changes: &[Change]) -> Result<u64, StoreError> {
        let failed = |source| StoreError::Write { path: self.path.clone(), source: Box::new(source) };
        let says_so = self.said.as_ref() == Some(about);
        let bytes = sheltered(&self.path, || {
            write(&self.database, Some(about).filter(|_| !says_so), fresh, changes).map_err(failed)
        })?;
        self.before = None;
        self.said = Some(about.clone());
        Ok(bytes)
    }

    #[cfg(test)]
    pub(super) fn set_format(&self, format: u64) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(ABOUT)?.insert("format", &format.to_le_bytes()[..])?;
        Ok(transaction.commit()?)
    }

    #[cfg(test)]
    pub(super) fn format(&self) -> Result<u64, redb::Error> {
        let table = self.database.begin_read()?.open_table(ABOUT)?;
        let format = table.get("format")?.and_then(|value| value.value().try_into().ok());
        Ok(format.map_or(0, u64::from_le_bytes))
    }

    #[cfg(test)]
    pub(super) fn insert(&self, key: u64, record: &[u8]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(RECORDS)?.insert(key, record)?;
        Ok(transaction.commit()?)
    }

    /// As a version before wrote it, with these records in it.
    #[cfg(test)]
    pub(super) fn make_before(&self, format: u64, all: &[(u64, &[u8])]) -> Result<(), redb::Error> {
        let sample = all.last().map_or(&[][..], |(_, record)| record);
        let transaction = self.database.begin_write()?;
        transaction.delete_table(RECORDS)?;
        transaction.delete_table(PACKED_BY)?;
        {
            let (mut records, mut packed_by) = (transaction.open_table(RECORDS)?, transaction.open_table(PACKED_BY)?);
            for (key, record) in all {
                let record = if format == SAMPLED { Sample::Of(sample.to_vec()).pack(record) } else { record.to_vec() };
                let table = if *key < TEMPLATES { &mut records } else { &mut packed_by };
                table.insert(key, record.as_slice())?;
            }
            let mut about = transaction.open_table(ABOUT)?;
            let version = if format == u64::from(FORMAT) { BEFORE } else { UNPACKED };
            for (name, number) in [("format", format), ("records", version.into())] {
                about.insert(name, &number.to_le_bytes()[..])?;
            }
            about.insert(SAMPLE, sample)?;
        }
        Ok(transaction.commit()?)
    }

    fn unreadable(&self, error: redb::Error) -> StoreError {
        if let redb::Error::Io(source) = error {
            return io_error(&self.path, "it cannot be read", source);
        }
        self.damaged(&error.to_string())
    }

    fn damaged(&self, why: &str) -> StoreError {
        StoreError::Unreadable { path: self.path.clone(), why: why.into(), word: DAMAGED }
    }
}

/// The same; `about`: where that is not what stands there.
fn write(database: &Database, about: Option<&About>, fresh: bool, changes: &[Change]) -> Result<u64, redb::Error> {
    let mut bytes = 0;
    let transaction = database.begin_write()?;
    if fresh {
        transaction.delete_table(RECORDS)?;
        transaction.delete_table(PACKED_BY)?;
    }
    {
        let (mut records, mut packed_by) = (transaction.open_table(RECORDS)?, transaction.open_table(PACKED_BY)?);
        let mut packed = Vec::new();
        for Change { key, record } in last_of_each(changes) {
            let records = if *key < TEMPLATES { &mut records } else { &mut packed_by };
            match record {
                Some(record) => {
                    record.write(&mut packed);
                    bytes += packed.len() as u64;
                    records.insert(key, packed.as_slice())?;
                }
                None => drop(records.remove(key)?),
            }
        }
        if let Some(about) = about {
            let mut table = transaction.open_table(ABOUT)?;
            table.insert("boot", about.boot.as_bytes())?;
            table.remove(SAMPLE)?;
            for (name, number) in [
                ("format", FORMAT.into()),
                ("records", VERSION.into()),
                ("offset_ns", about.offset_ns),
                ("unseen", about.unseen),
            ] {
                table.insert(name, &u64::to_le_bytes(number)[..])?;
            }
        }
    }
    transaction.commit()?;
    Ok(bytes)
}

/// In the order of their keys, so that a page is written once, and of several with one key that which comes last.
fn last_of_each(changes: &[Change]) -> Vec<&Change> {
    let mut all: Vec<&Change> = changes.iter().collect();
    // Those with one key keep their order.
    all.sort_by_key(|change| change.key);
    all.dedup_by(|later, kept| {
        let is_same = later.key == kept.key;
        if is_same {
            *kept = *later;
        }
        is_same
    });
    all
}

/// Under which the sample stood.
const SAMPLE: &str = "sample";

/// In the names of files that are not as they were written.
const DAMAGED: &str = "damaged";

/// Files that were put aside.
pub(super) fn set_aside(dir: &Path) -> Vec<PathBuf> {
    let prefix = format!("{NAME}.");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Whether somebody keeps state in a directory.
pub(super) fn is_in_use(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|dir| matches!(dir.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::Io { path: dir.to_owned(), what: "the directory cannot be locked", source };
    let file = File::open(dir).map_err(failed)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(StoreError::InUse { dir: dir.to_owned() });
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn database_error(path: &Path, error: DatabaseError) -> StoreError {
    if let DatabaseError::Storage(StorageError::Io(source)) = error {
        return io_error(path, "it cannot be opened", source);
    }
    if matches!(error, DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch) {
        return StoreError::InUse { dir: path.parent().unwrap_or(path).to_owned() };
    }
    let word = if matches!(error, DatabaseError::UpgradeRequired(_)) { "older" } else { DAMAGED };
    StoreError::Unreadable { path: path.to_owned(), why: error.to_string(), word }
}

/// redb says of a file that makes no sense to it that its data are invalid.
fn io_error(path: &Path, what: &'static str, source: io::Error) -> StoreError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::InvalidData {
        return StoreError::Unreadable { path, why: source.to_string(), word: DAMAGED };
    }
    StoreError::Io { path, what, source }
}

/// Pages that are damaged in ways that redb does not foresee make it panic.
fn sheltered<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Unreadable { path: path.to_owned(), why: "it cannot be made sense of".into(), word: DAMAGED })
    })
}
