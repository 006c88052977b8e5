//! Every link in the documents leads to a file, and to a heading, that there is.

#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The documents below `folder`, but for what is built and hidden.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// What a heading is called in a link: as GitHub does it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn anchors(text: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let name = anchor(line.trim_start_matches('#'));
        let again = (1..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.clone()).chain(again).find(|name| !found.contains(name));
        found.extend(free);
    }
    found
}

/// Where the links of a document lead.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // What stands in backquotes is shown, not linked.
        let line: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let ends = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        found.extend(ends.map(str::to_owned));
    }
    found
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_there_are() {
    let mut all = Vec::new();
    documents(&root(), &mut all);
    let (mut seen, mut wrong) = (0, Vec::new());
    for document in &all {
        let text = fs::read_to_string(document).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let good = match fs::read_to_string(&target) {
                Ok(text) => heading.is_empty() || anchors(&text).contains(heading),
                Err(_) => target.is_dir() && heading.is_empty(),
            };
            if !good {
                wrong.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "these lead nowhere:\n{}", wrong.join("\n"));
    assert!(seen > 30, "{seen} links in {} documents", all.len());
}

#[test]
fn a_heading_is_called_what_github_calls_it() {
    let text = "# `trunks[].act_at`\n## 401 or 407 to a refresh\n## Twice\n```\n# no heading\n```\n## Twice\n";
    let found = anchors(text);
    for name in ["trunksact_at", "401-or-407-to-a-refresh", "twice", "twice-1"] {
        assert!(found.contains(name), "{name}: {found:?}");
    }
    assert_eq!(found.len(), 4);
    assert_eq!(links("see [a](b.md#c), `[x](y)` and [d](#e)\n```\n[f](g)\n```\n"), ["b.md#c", "#e"]);
}
