//! `cargo xtask bench`: what sipst costs, figure by figure, beside what is wanted of it.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::{
    build, setup,
    shell::{self, step},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Which part; all of them by default
    part: Option<Part>,
    /// One JSON object a line on stdout instead of a table
    #[arg(long)]
    json: bool,
    /// For that part: how much of it; docs/benchmarks.md says what
    #[arg(last = true, requires = "part")]
    size: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// What the kernel programs cost a packet
    Kernel,
    /// What user space costs a message and a session, beside other readers of captures
    User,
    /// Whether a million sessions are refreshed when they are due
    Punctual,
    /// What sipst takes beside real traffic, beside what other tools take
    Place,
}

/// What a bench prints of a figure. Lines that are none are for people.
#[derive(Debug, Deserialize, PartialEq)]
struct Figure {
    name: String,
    value: f64,
    unit: String,
    target: Option<String>,
    ok: Option<bool>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let parts = options.part.map_or_else(|| Part::value_variants().to_vec(), |part| vec![part]);
    shell::need_root("measuring")?;
    let wants = setup::Wants {
        readers: parts.iter().any(|part| matches!(part, Part::User | Part::Place)),
        laboratory: parts.iter().any(|part| *part != Part::User),
        ..setup::Wants::KERNEL
    };
    setup::run(wants)?;
    build::kernel()?;
    let mut figures = Vec::new();
    for part in parts {
        figures.extend(part.run(options.json, &options.size)?);
    }
    if !options.json {
        print!("{}", table(&figures));
    }
    Ok(())
}

impl Part {
    /// Runs it and gives its figures; with `json` each is printed as it comes.
    fn run(self, json: bool, size: &[String]) -> Result<Vec<Figure>> {
        let (name, what, inner): (_, _, &[&str]) = match self {
            Self::Kernel => ("kernel", ["--package", "st-tests", "--bench", "kernel"], &[]),
            Self::User => ("user", ["--package", "sipst", "--bench", "user"], &[]),
            Self::Punctual => ("punctual", ["--package", "sipst", "--bench", "wire"], &["punctual"]),
            Self::Place => ("place", ["--package", "sipst", "--bench", "wire"], &["place"]),
        };
        step("bench", name);
        let mut cargo = shell::cargo();
        cargo.args(["bench", "--quiet"]).args(what).arg("--").args(inner).args(size).stdout(Stdio::piped());
        let mut child = cargo.spawn().with_context(|| format!("cannot run `{}`", shell::text(&cargo)))?;
        let mut figures = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line.context("cannot read what the bench prints")?;
                match serde_json::from_str(&line) {
                    Ok(figure) => {
                        if json {
                            println!("{line}");
                        }
                        figures.push(figure);
                    }
                    Err(_) => eprintln!("{line}"),
                }
            }
        }
        let status = child.wait().context("lost the bench")?;
        if !status.success() {
            bail!("`{}` failed ({status}); its own message stands above", shell::text(&cargo));
        }
        Ok(figures)
    }
}

/// The figures in columns, and how many are as wanted.
fn table(figures: &[Figure]) -> String {
    let wide = |text: fn(&Figure) -> usize| figures.iter().map(text).max().unwrap_or_default();
    let (names, units) = (wide(|figure| figure.name.chars().count()), wide(|figure| figure.unit.len()));
    let mut text = String::new();
    for Figure { name, value, unit, target, ok } in figures {
        let verdict = match ok {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "",
        };
        let line = format!(
            "{name:<names$}  {value:>11.2} {unit:<units$}  {:<10} {verdict}",
            target.as_deref().unwrap_or_default()
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let wanted = figures.iter().filter(|figure| figure.ok.is_some()).count();
    let met = figures.iter().filter(|figure| figure.ok == Some(true)).count();
    text + &format!("\n{met} of {wanted} targets met\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_counts_what_is_as_wanted() {
        let lines = [
            r#"{"name":"kernel/RTP","value":1.25,"unit":"x","target":"<= 1.4","ok":true}"#,
            r#"{"name":"kernel/BYE","value":2100.0,"unit":"ns","target":"<= 2000","ok":false}"#,
            r#"{"name":"told only","value":7.0,"unit":"ns","target":null,"ok":null}"#,
        ];
        let figures: Vec<Figure> = lines.iter().map(|line| serde_json::from_str(line).expect("a figure")).collect();
        let wanted = "kernel/RTP         1.25 x   <= 1.4     ok\n\
                      kernel/BYE      2100.00 ns  <= 2000    MISSED\n\
                      told only          7.00 ns\n\
                      \n1 of 2 targets met\n";
        assert_eq!(table(&figures), wanted);
    }

    #[test]
    fn what_a_bench_says_to_people_is_no_figure() {
        assert!(serde_json::from_str::<Figure>("running 3 benches").is_err());
        assert!(serde_json::from_str::<Figure>(r#"{"name":"x"}"#).is_err());
    }
}
