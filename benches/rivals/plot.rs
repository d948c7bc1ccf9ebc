//! Every failover as a dot on a logarithmic axis of time.

use std::fmt::Write;

use crate::contender::Contender;
use crate::report::{DURATIONS, FIGURES, Results};

const WIDTH: f64 = 800.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 776.0;
const TOP: f64 = 72.0;
/// The height of a cell, which has a strip for each contender.
const HEIGHT: f64 = 52.0;
const STRIP: f64 = 20.0;
/// The axis, in seconds. Values outside of it are drawn at its ends.
const FROM: f64 = 0.001;
const UNTIL: f64 = 60.0;
const TICKS: [(f64, &str); 6] =
    [(0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s"), (60.0, "1 min")];

const STYLE: &str = r#"  <style>
    text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 13px; fill: #1f2933 }
    .head { font-size: 15px; font-weight: 600 }
    .soft { fill: #52606d; font-size: 12px }
    .end { text-anchor: end }
    .mid { text-anchor: middle }
    .sheet { fill: #f7f9fb }
    .grid { stroke: #d5dde4; stroke-width: 1 }
    .ours { fill: #1b7f4d }
    .theirs { fill: #b7791f }
    .dot { fill-opacity: .38 }
    .median { stroke-width: 2.5; stroke-linecap: round }
    .median.ours { stroke: #145e39 }
    .median.theirs { stroke: #8a5a12 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e4e9ee }
      .soft { fill: #a9b5c1 }
      .sheet { fill: #161c23 }
      .grid { stroke: #323d48 }
      .ours { fill: #4fc38a }
      .theirs { fill: #d9a441 }
      .median.ours { stroke: #8fe3b8 }
      .median.theirs { stroke: #f2cd85 }
    }
  </style>
"#;

pub fn svg(results: &Results) -> Result<String, std::fmt::Error> {
    let bottom = TOP + HEIGHT * (FIGURES.len() * DURATIONS.len()) as f64;
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-labelledby=\"title desc\">",
        bottom + 40.0
    )?;
    svg += "  <title id=\"title\">Failovers of k8sensus and client-go</title>\n  <desc id=\"desc\">Each failover is a dot on a \
            logarithmic axis of time, a bar is the median. The figures are in the table beside this picture.</desc>\n";
    svg += STYLE;
    writeln!(svg, "  <rect class=\"sheet\" width=\"{WIDTH}\" height=\"{}\" rx=\"12\"/>", bottom + 40.0)?;
    svg += "  <text class=\"head\" x=\"24\" y=\"34\">Each failover a dot, the median a bar</text>\n";
    for (contender, x) in [(Contender::Ours, 560.0), (Contender::ClientGo, 680.0)] {
        writeln!(svg, "  <circle class=\"{}\" cx=\"{x}\" cy=\"29\" r=\"5\"/>", class(contender))?;
        writeln!(svg, "  <text x=\"{}\" y=\"34\">{contender}</text>", x + 11.0)?;
    }
    for (seconds, label) in TICKS {
        let x = at(seconds);
        writeln!(svg, "  <path class=\"grid\" d=\"M{x:.1} {:.0}V{bottom:.0}\"/>", TOP - 14.0)?;
        writeln!(svg, "  <text class=\"soft mid\" x=\"{x:.1}\" y=\"{:.0}\">{label}</text>", bottom + 20.0)?;
    }
    let mut y = TOP;
    for figure in &FIGURES {
        for durations in DURATIONS {
            let (event, measured) = figure.title.split_once(": ").unwrap_or(("", figure.title));
            let separator = if event.is_empty() { "" } else { ", " };
            writeln!(svg, "  <text class=\"end\" x=\"{}\" y=\"{:.0}\">{measured}</text>", LEFT - 16.0, y + 17.0)?;
            writeln!(
                svg,
                "  <text class=\"soft end\" x=\"{}\" y=\"{:.0}\">{event}{separator}{durations}</text>",
                LEFT - 16.0,
                y + 33.0
            )?;
            for (strip, contender) in Contender::BOTH.into_iter().enumerate() {
                let sample = results.sample(figure, durations, contender);
                let top = y + 2.0 + STRIP * strip as f64;
                for (number, seconds) in sample.values().iter().enumerate() {
                    // Spreads dots of equal times over the strip, the same way in every run.
                    let share = (number as f64 * 0.618_034).fract();
                    let (x, y) = (at(*seconds), top + 3.0 + share * (STRIP - 6.0));
                    writeln!(
                        svg,
                        "  <circle class=\"dot {}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"/>",
                        class(contender)
                    )?;
                }
                if sample.len() > 0 {
                    let (x, class) = (at(sample.quantile(0.5)), class(contender));
                    writeln!(svg, "  <path class=\"median {class}\" d=\"M{x:.1} {top:.0}v{STRIP}\"/>")?;
                }
            }
            y += HEIGHT;
        }
    }
    svg += "</svg>\n";
    Ok(svg)
}

fn class(contender: Contender) -> &'static str {
    match contender {
        Contender::Ours => "ours",
        Contender::ClientGo => "theirs",
    }
}

fn at(seconds: f64) -> f64 {
    let share = (seconds.clamp(FROM, UNTIL) / FROM).ln() / (UNTIL / FROM).ln();
    LEFT + share * (RIGHT - LEFT - 14.0) + 7.0
}
