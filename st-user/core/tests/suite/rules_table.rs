//! docs/rules.md has a row for every rule, and every test that it names exists; docs/reasons.md explains every reason;
//! docs/bounds.md has a row for every bound of the engine; docs/security.md names a test for every attack.

#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

use st_core::{Refusal, engine::reason};

const RULES: u32 = 44;
const FAILURES: u32 = 26;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of all functions in the Rust files below `folder`.
fn functions(folder: &Path, found: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.lines().map(|line| line.trim_start().trim_start_matches("async "));
            let names = names.filter_map(|line| line.strip_prefix("fn "));
            found.extend(names.filter_map(|rest| rest.split(['(', '<']).next()).map(str::to_owned));
        }
    }
}

fn all_functions() -> HashSet<String> {
    let mut found = HashSet::new();
    for folder in ["st-ebpf/src", "st-user/core/src", "st-user/core/tests", "st-user/src", "st-user/tests", "tests"] {
        functions(&root().join(folder), &mut found);
    }
    found
}

/// The cells of the rows of all tables in a document.
fn rows_of(document: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(str::to_owned).collect()).collect()
}

fn rows() -> Vec<Vec<String>> {
    rows_of("docs/rules.md")
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_rule_has_one_row_that_names_a_test_or_says_why_not() {
    let rows = rows();
    let names = (1..=RULES).map(|number| format!("R{number}")).chain((1..=FAILURES).map(|number| format!("F{number}")));
    for name in names {
        let found: Vec<_> = rows.iter().filter(|row| row[0] == name).collect();
        let [row] = found[..] else { panic!("{name}: {found:?}") };
        assert_eq!(row.len(), 3, "{row:?}");
        assert!(quoted(&row[2]).next().is_some() || row[2].starts_with("Not here"), "{row:?}");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let functions = all_functions();
    let rows = rows();
    let missing: Vec<_> = rows
        .iter()
        .filter(|row| row.len() == 3)
        .flat_map(|row| quoted(&row[2]))
        .filter(|name| !functions.contains(*name))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn a_test_with_a_rules_number_is_of_a_rule_that_there_is() {
    let number = |part: &str| {
        let digits = part.strip_prefix(['r', 'f'])?;
        (digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse::<u32>())?.ok()
    };
    let mut wrong = BTreeSet::new();
    for name in all_functions() {
        for part in name.split('_').map_while(|part| number(part).map(|number| (part.starts_with('r'), number))) {
            let (is_rule, number) = part;
            if number == 0 || number > if is_rule { RULES } else { FAILURES } {
                wrong.insert(name.clone());
            }
        }
    }
    assert_eq!(wrong, BTreeSet::new());
}

#[test]
fn every_reason_is_explained() {
    let text = fs::read_to_string(root().join("docs/reasons.md")).unwrap();
    for (word, meaning) in reason::ALL {
        assert!(text.contains(&format!("| `{word}` | {} |\n", meaning.trim())), "{word}");
    }
    for refusal in Refusal::ALL {
        assert!(text.contains(&format!("| `{refusal}` |")), "{refusal}");
    }
}

#[test]
fn every_bound_of_the_engine_has_a_row() {
    let text = fs::read_to_string(root().join("docs/bounds.md")).unwrap();
    let limits = fs::read_to_string(root().join("st-user/core/src/engine/limits.rs")).unwrap();
    let constants = limits.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    for constant in constants {
        assert!(text.contains(&format!("| `{constant}` | ")), "{constant}");
    }
}

#[test]
fn every_attack_names_a_test() {
    let rows = rows_of("docs/security.md").into_iter();
    let attacks: Vec<_> = rows.skip_while(|row| row[0] != "attack").skip(1).collect();
    assert!(!attacks.is_empty());
    for row in attacks {
        assert!(row.len() == 3 && quoted(&row[2]).any(|word| word.ends_with("()")), "{row:?}");
    }
}

#[test]
fn every_test_with_brackets_in_a_document_exists() {
    let functions = all_functions();
    for document in ["docs/bounds.md", "docs/security.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for test in quoted(&text).filter_map(|word| word.strip_suffix("()")) {
            assert!(functions.contains(test), "{document}: {test}");
        }
    }
}
