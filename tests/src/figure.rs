//! What a bench has found: one JSON line a figure on stdout, which `cargo xtask bench` reads.

use serde_json::json;

/// What is wanted of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// It is good up to this.
    AtMost(f64),
    /// It is good from this on.
    AtLeast(f64),
    /// It is told, and nothing is wanted of it.
    None,
}

/// Prints a figure: `{"name": ..., "value": ..., "unit": ..., "target": ..., "ok": ...}`; without a target both are null.
pub fn tell(name: &str, value: f64, unit: &str, target: Target) {
    let (target, ok) = match target {
        Target::AtMost(most) => (json!(format!("<= {most}")), json!(value <= most)),
        Target::AtLeast(least) => (json!(format!(">= {least}")), json!(value >= least)),
        Target::None => (json!(null), json!(null)),
    };
    let value = (value * 1_000.0).round() / 1_000.0;
    println!("{}", json!({ "name": name, "value": value, "unit": unit, "target": target, "ok": ok }));
}
