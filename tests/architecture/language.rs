//! The worst words of the project's former dialect stay out: a reader who has never seen the project must understand
//! each sentence the first time.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

/// In two parts each, so that this file has none of them.
const WORDS: [(&str, &str); 5] = [("to", "ld"), ("sou", "ght"), ("an", "ew"), ("who", "ever"), ("whom", "ever")];

/// What people read: sources, tests, docs, the chart and its generated files.
const PLACES: [&str; 12] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "benches",
    "charts",
    "crds",
    "deploy",
    "docs",
    "examples",
    "src",
    "tests",
];

fn files(place: &Path, found: &mut Vec<PathBuf>) {
    if place.is_dir() {
        fs::read_dir(place).unwrap().for_each(|entry| files(&entry.unwrap().path(), found));
    } else {
        found.push(place.to_owned());
    }
}

#[test]
fn no_text_uses_the_former_dialect() {
    let mut found = Vec::new();
    PLACES.iter().for_each(|place| files(&root().join(place), &mut found));
    assert!(found.len() > 300, "only {} files", found.len());
    let mut wrong = Vec::new();
    for path in found {
        // Pictures and archives are no text.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            let mut words = line.split(|c: char| !c.is_alphanumeric());
            if words.any(|word| WORDS.iter().any(|(start, end)| word.strip_prefix(start) == Some(end))) {
                wrong.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
