//! Pictures as text. Pure: the width and the colours are inputs.

mod history;
mod layout;
mod list;
mod status;
#[cfg(test)]
mod tests;

pub use history::history;
pub use layout::{Page, span};
pub use list::list;
pub use status::status;
