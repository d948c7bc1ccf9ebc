//! Tables, fields, paragraphs and colours within a width.

use anstyle::{AnsiColor, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use jiff::Timestamp;

/// The columns of the labels of fields.
const LABEL: usize = 13;

/// Where text is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page {
    /// The columns of the terminal; `None` without a terminal, where lines are as long as they need.
    pub width: Option<usize>,
    /// Whether words may be coloured. The words say the same without colours.
    pub colours: bool,
    /// Whether to show more columns.
    pub wide: bool,
}

/// The meaning of a word, which gives it its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A leader, or what works: green.
    Good,
    /// A standby: blue.
    Calm,
    /// What is under way or needs attention: yellow.
    Warning,
    /// What has crashed, or does not work: red.
    Bad,
    /// What is leaving, or is off by intention: grey.
    Off,
    /// A heading: bold.
    Heading,
}

/// Returns `word` in the colour that `tone` stands for.
pub fn paint(page: Page, tone: Tone, word: &str) -> String {
    if !page.colours {
        return word.to_owned();
    }
    let style = match tone {
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Calm => AnsiColor::Blue.on_default(),
        Tone::Warning => AnsiColor::Yellow.on_default(),
        Tone::Bad => AnsiColor::Red.on_default(),
        Tone::Off => AnsiColor::BrightBlack.on_default(),
        Tone::Heading => Style::new().bold(),
    };
    format!("{style}{word}{style:#}")
}

/// Returns the text in lines of the page's width; all but the first begin with `indent` spaces.
pub fn paragraph(page: Page, first: &str, text: &str, indent: usize) -> String {
    let Some(width) = page.width else { return format!("{first}{text}\n") };
    let rest = " ".repeat(indent);
    let options = textwrap::Options::new(width.max(indent + 10)).initial_indent(first).subsequent_indent(&rest);
    textwrap::fill(text, options) + "\n"
}

/// Returns a labelled text.
pub fn field(page: Page, label: &str, text: &str) -> String {
    paragraph(page, &format!("{label:LABEL$}"), text, LABEL)
}

/// Returns a heading on a line of its own, after an empty line.
pub fn heading(page: Page, text: &str) -> String {
    format!("\n{}\n", paint(page, Tone::Heading, text))
}

/// A row of a table. One of its cells may have a tone.
pub struct Row {
    /// The cells.
    pub cells: Vec<String>,
    /// A word and its tone. The first place in the row with this word is coloured, so no earlier cell may contain it.
    pub tone: Option<(String, Tone)>,
}

/// Returns rows below headers; if that is wider than the page, a block of lines for each row.
pub fn table(page: Page, headers: &[&str], rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.iter().copied());
    for row in rows {
        table.add_row(row.cells.iter().map(String::as_str));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let widest = lines.iter().map(|line| textwrap::core::display_width(line)).max().unwrap_or(0);
    if page.width.is_some_and(|width| widest > width) {
        return rows.iter().map(|row| block(page, headers, row)).collect();
    }
    let mut out = format!("{}\n", lines.first().copied().unwrap_or_default());
    for (row, line) in rows.iter().zip(lines.iter().skip(1)) {
        out.push_str(&coloured(page, row, line));
        out.push('\n');
    }
    out
}

fn block(page: Page, headers: &[&str], row: &Row) -> String {
    let longest = headers.iter().map(|header| header.len()).max().unwrap_or(0) + 3;
    let mut out = String::new();
    for (number, (header, cell)) in headers.iter().zip(&row.cells).enumerate() {
        if !cell.is_empty() {
            let indent = if number == 0 { "" } else { "  " };
            let first = format!("{indent}{header:width$}", width = longest - indent.len());
            out.push_str(&coloured(page, row, &paragraph(page, &first, cell, longest)));
        }
    }
    out
}

fn coloured(page: Page, row: &Row, line: &str) -> String {
    match &row.tone {
        Some((word, tone)) => line.replacen(word.as_str(), &paint(page, *tone, word), 1),
        None => line.to_owned(),
    }
}

/// Returns a time span as kubectl writes ages: 9s, 5m12s, 3h5m, 12d.
pub fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "a time span in seconds")]
    let seconds = seconds.max(0.0) as i64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let both = |large: i64, unit: char, small: i64, other: char| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{other}"),
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => both(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => both(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => both(days, 'd', hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}

/// Returns the time as it is shown: in UTC, to the second.
pub fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
