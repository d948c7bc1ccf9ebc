//! What is printed, and in which format.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::connect::{has_colours, terminal_width};
use crate::failure::Failure;
use crate::flags::Output;
use crate::show::Page;

/// Returns the page for a terminal, or for a pipe.
pub fn page(output: Option<Output>) -> Page {
    Page { width: terminal_width(), colours: has_colours(), wide: output == Some(Output::Wide) }
}

/// Prints the text. A reader that closes the pipe, such as `head`, is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Refused(format!("cannot write to the standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a remark that does not belong to the output.
pub fn remark(text: &str) {
    // eprintln would panic if stderr is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints `value` as JSON or YAML, else the names or `text`.
pub fn print_as<T: Serialize>(
    output: Option<Output>,
    value: &T,
    names: &[&str],
    text: impl FnOnce(Page) -> String,
) -> Result<(), Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::Refused(format!("the output cannot be written: {error}"));
    match output {
        Some(Output::Json) => print(&(serde_json::to_string_pretty(value).map_err(|error| wrong(&error))? + "\n")),
        Some(Output::Yaml) => print(&serde_saphyr::to_string(value).map_err(|error| wrong(&error))?),
        Some(Output::Name) => print(&names.iter().map(|name| qualified(name) + "\n").collect::<String>()),
        Some(Output::Wide) | None => print(&text(page(output))),
    }
}

/// Returns the group's name as kubectl prints it.
pub fn qualified(name: &str) -> String {
    format!("electiongroup.{}/{name}", crate::api::GROUP)
}
