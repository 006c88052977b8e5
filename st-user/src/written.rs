//! Documents that are made from the code: a test compares what stands in the repository with what the code says, or, where the
//! environment asks for it, writes it anew.

use std::{env, fs, path::Path};

/// The variable that has them written: `SIPST_WRITE_DOCS=1 cargo test -p sipst`.
const WRITE: &str = "SIPST_WRITE_DOCS";

/// Sees to it that a file of the repository's, named from its root, holds just this text.
///
/// # Panics
/// It holds another one.
pub(crate) fn holds(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    if env::var_os(WRITE).is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    if let Some((line, (found, made))) =
        found.lines().zip(text.lines()).enumerate().find(|(_, (found, made))| found != made)
    {
        panic!(
            "{file}, line {}: the code says otherwise (`{WRITE}=1 cargo test -p sipst` writes it anew):\n{found}\n{made}",
            line + 1
        );
    }
    assert_eq!(
        found.len(),
        text.len(),
        "{file} is longer or shorter than what the code says (`{WRITE}=1` writes it anew)"
    );
}
