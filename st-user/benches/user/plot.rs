//! How cost grows with the number of sessions, drawn.

use std::fmt::Write as _;

use crate::size::{Cost, Start};

/// Each of the three pictures, in pixels, and the room around it.
const WIDTH: f64 = 230.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;

/// Three pictures side by side: a message, a start, memory.
pub(crate) fn growth(costs: &[(Cost, Start)]) -> String {
    let points = |value: fn(&(Cost, Start)) -> f64| -> Vec<(u64, f64)> {
        costs.iter().map(|cost| (cost.0.sessions, value(cost))).collect()
    };
    let pictures = [
        ("a message, us", points(|cost| cost.0.message)),
        ("start from the store, s", points(|cost| cost.1.busy)),
        ("memory of a session, bytes", points(|cost| cost.0.held)),
    ];
    let (width, height) = (3.0 * (WIDTH + LEFT) + 20.0, HEIGHT + TOP + 50.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, (title, points)) in pictures.iter().enumerate() {
        picture(&mut svg, LEFT + at as f64 * (WIDTH + LEFT), title, points);
    }
    svg + "</svg>\n"
}

fn picture(svg: &mut String, left: f64, title: &str, points: &[(u64, f64)]) {
    let most = points.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max) * 1.15;
    let across = |sessions: u64| left + 15.0 + (sessions as f64 / 1e3).log10() / 3.0 * (WIDTH - 30.0);
    let down = |value: f64| TOP + HEIGHT * (1.0 - value / most);
    let (bottom, right) = (TOP + HEIGHT, left + WIDTH);
    // Writing to memory does not fail.
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\" font-size=\"13\">{title}</text>", TOP - 16.0);
    let _ = writeln!(svg, "<path d=\"M{left} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>");
    let line: Vec<String> =
        points.iter().map(|(sessions, value)| format!("{:.1},{:.1}", across(*sessions), down(*value))).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"steelblue\" stroke-width=\"2\"/>",
        line.join(" ")
    );
    for (sessions, value) in points {
        let (x, y) = (across(*sessions), down(*value));
        let digits = if *value >= 100.0 {
            0
        } else if *value >= 1.0 {
            2
        } else {
            3
        };
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"steelblue\"/>");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.digits$}</text>", y - 8.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{sessions}</text>", bottom + 16.0);
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">sessions</text>",
        left + WIDTH / 2.0,
        bottom + 34.0
    );
}
