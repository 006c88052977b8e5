//! The table: kernel by subject, and below it why something is not there and what has failed.

use anyhow::Result;
use st_tests::matrix::{Check, Line, Subject, Verdict};

/// One kernel.
pub(crate) struct Row {
    name: String,
    checks: Vec<Check>,
}

impl Row {
    /// From what the checks said, or why they said nothing.
    pub(crate) fn new(name: String, lines: Result<Vec<Line>>) -> Self {
        let mut row = Self { name, checks: Vec::new() };
        let lines = match lines {
            Ok(lines) => lines,
            Err(error) => {
                row.fail(Subject::Verify, format!("{error:#}"));
                return row;
            }
        };
        for line in lines {
            match line {
                Line::Release(release) => row.name = format!("{release} ({})", row.name),
                Line::Check(check) => row.checks.push(check),
                Line::End => {}
            }
        }
        // A kernel that sipst takes is looked at in full.
        if !row.of(Subject::Verify).any(|check| matches!(check.verdict, Verdict::Missing(_))) {
            for subject in Subject::ALL {
                if row.of(subject).next().is_none() {
                    row.fail(subject, "it was not looked at".into());
                }
            }
        }
        row
    }

    fn fail(&mut self, subject: Subject, what: String) {
        self.checks.push(Check { subject, way: String::new(), verdict: Verdict::Fail(what) });
    }

    pub(crate) fn passed(&self) -> u64 {
        self.checks.iter().filter(|check| check.verdict == Verdict::Pass).count() as u64
    }

    pub(crate) fn failed(&self) -> u64 {
        self.checks.iter().filter(|check| matches!(check.verdict, Verdict::Fail(_))).count() as u64
    }

    fn of(&self, subject: Subject) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| check.subject == subject)
    }

    /// As good as the worst.
    fn cell(&self, subject: Subject) -> &'static str {
        let has = |wanted: fn(&Verdict) -> bool| self.of(subject).any(|check| wanted(&check.verdict));
        if has(|verdict| matches!(verdict, Verdict::Fail(_))) {
            "FAIL"
        } else if has(|verdict| *verdict == Verdict::Pass) {
            "pass"
        } else {
            "-"
        }
    }
}

/// For people.
pub(crate) fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let line = |name: &str, cell: &dyn Fn(Subject) -> &'static str| {
        let cells = Subject::ALL.map(|subject| format!("  {:<1$}", cell(subject), subject.name().len()));
        format!("{}\n", format!("{name:<width$}{}", cells.concat()).trim_end())
    };
    let mut text = line("kernel", &Subject::name);
    text.extend(rows.iter().map(|row| line(&row.name, &|subject| row.cell(subject))));
    for row in rows {
        for Check { subject, way, verdict } in &row.checks {
            let (word, why) = match verdict {
                Verdict::Pass => continue,
                Verdict::Missing(why) => ("-", why),
                Verdict::Fail(what) => ("FAIL", what),
            };
            let way = if way.is_empty() { String::new() } else { format!(", by {way}") };
            text.push_str(&format!("\n{word:<4}  {}: {}{way}: {why}", row.name, subject.name()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn check(subject: Subject, way: &str, verdict: Verdict) -> Line {
        Line::Check(Check { subject, way: way.into(), verdict })
    }

    fn good() -> Vec<Line> {
        let mut lines = vec![Line::Release("6.12.1".into())];
        lines.extend(Subject::ALL.map(|subject| check(subject, "tc", Verdict::Pass)));
        lines
    }

    #[test]
    fn a_subject_is_as_good_as_the_worst_way_to_it() {
        let mut lines = good();
        assert_eq!(Row::new("trixie".into(), Ok(lines.clone())).cell(Subject::Call), "pass");
        lines.push(check(Subject::Call, "xdp native", Verdict::Fail("it died".into())));
        let row = Row::new("trixie".into(), Ok(lines));
        assert_eq!((row.cell(Subject::Call), row.passed(), row.failed()), ("FAIL", 11, 1));
        let table = table(&[row]);
        assert!(table.contains("FAIL  6.12.1 (trixie): call, by xdp native: it died"), "{table}");
    }

    #[test]
    fn what_was_not_looked_at_has_failed_unless_sipst_refuses_the_kernel() {
        let refused = vec![check(Subject::Verify, "", Verdict::Missing("too old".into()))];
        let row = Row::new("5.10".into(), Ok(refused));
        assert_eq!((row.cell(Subject::Verify), row.cell(Subject::Call), row.failed()), ("-", "-", 0));
        let mut lines = good();
        lines.pop();
        let row = Row::new("6.1".into(), Ok(lines));
        assert_eq!((row.cell(Subject::Lockdown), row.failed()), ("FAIL", 1));
        assert_eq!(Row::new("6.1".into(), Err(anyhow!("no kernel"))).failed(), 1);
    }
}
