//! The corpus that the fuzzer left holds, and so do a few mutations of each of its files.

use std::{fs, panic, path::Path};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use st_fuzz::{PROPERTIES, Property};

/// Where the random numbers begin.
const SEED: u64 = 1;

/// Mutations of all files of one property together.
const MUTATIONS: usize = 500;

/// The files of one corpus, in the order of their names.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("a corpus")
        .map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().into_string().expect("a name"), fs::read(entry.path()).expect("a file"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// A panic names the input.
fn holds((name, property): Property, what: &str, bytes: &[u8]) {
    if let Err(panic) = panic::catch_unwind(|| property(bytes)) {
        eprintln!("{name}, {what}: {}", bytes.escape_ascii());
        panic::resume_unwind(panic);
    }
}

/// Other bytes, other lengths, other files' beginnings.
fn mutated(random: &mut StdRng, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = files[random.random_range(0..files.len())].1.clone();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.random()),
            2 => {
                let other = &files[random.random_range(0..files.len())].1;
                bytes.splice(at.., other[at.min(other.len())..].iter().copied());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.random();
                }
            }
        }
    }
    bytes
}

#[test]
fn each_property_holds_for_its_corpus_and_for_mutations_of_it() {
    for property in PROPERTIES {
        let files = corpus(property.0);
        for (file, bytes) in &files {
            holds(property, file, bytes);
        }
        let mut random = StdRng::seed_from_u64(SEED);
        for number in 0..MUTATIONS {
            holds(property, &format!("seed {SEED}, mutation {number}"), &mutated(&mut random, &files));
        }
    }
}
