//! The alert rules and the dashboard that are shipped ask for metrics that there are, and every alert has its page.

use std::{collections::BTreeSet, fs, path::Path};

use super::declaration::{Declared, Families};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

/// Every name that a series can have.
fn known() -> BTreeSet<String> {
    let names = Families::declared();
    names.iter().flat_map(Declared::series).collect()
}

/// Every name in a text that is one of ours by its looks.
fn asked(text: &str) -> BTreeSet<&str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(word).filter(|word| word.starts_with("sipst_") || word.starts_with("process_")).collect()
}

/// Strings under these keys, however deep.
fn strings<'a>(value: &'a serde_json::Value, keys: &[&str], found: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().filter(|_| keys.contains(&&**key)) {
                    Some(text) => found.push(text),
                    None => strings(value, keys, found),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| strings(value, keys, found)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

const RULES: &str = "config/prometheus/sipst.rules.yml";

/// Name, expression and page of every alert.
fn alerts() -> Vec<[String; 3]> {
    let rules: serde_json::Value = serde_yaml::from_str(&read(RULES)).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rules.map(|rule| [&rule["alert"], &rule["expr"], &rule["annotations"]["runbook_url"]].map(text)).collect()
}

#[test]
fn alerts_ask_for_metrics_that_are_declared() {
    let known = known();
    for [alert, expression, _] in alerts() {
        let asked = asked(&expression);
        assert!(!asked.is_empty() || expression.starts_with("up{"), "{alert}");
        for name in asked {
            assert!(known.contains(name), "{alert}: {name}");
        }
    }
}

#[test]
fn every_alert_has_its_page_and_its_test_and_no_page_is_about_nothing() {
    let operations = read("docs/operations.md");
    let pages: BTreeSet<_> = operations.lines().filter_map(|line| line.strip_prefix("## Sipst")).collect();
    let tests: serde_json::Value = serde_yaml::from_str(&read("tests/prometheus/sipst.test.yml")).unwrap();
    let mut tested = Vec::new();
    strings(&tests, &["alertname"], &mut tested);
    let alerts = alerts();
    for [alert, _, page] in &alerts {
        assert!(pages.contains(alert.strip_prefix("Sipst").unwrap()), "docs/operations.md has no `## {alert}`");
        let (file, anchor) = page.split_once('#').unwrap();
        assert!(file.ends_with("/docs/operations.md"), "{page}");
        assert_eq!(anchor, alert.to_lowercase());
        // It fires, and there is a moment at which it does not.
        assert!(tested.iter().filter(|tested| *tested == alert).count() >= 2, "{alert} is not tested");
    }
    assert_eq!(pages.len(), alerts.len());
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_declared() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("config/grafana/sipst.json")).unwrap();
    let mut expressions = Vec::new();
    strings(&dashboard, &["expr", "query"], &mut expressions);
    let known = known();
    let asked: BTreeSet<&str> = expressions.iter().flat_map(|expression| asked(expression)).collect();
    assert!(asked.len() > 10, "{asked:?}");
    for name in asked {
        assert!(known.contains(name), "{name}");
    }
}
