//! Copies the sources of the election and the campaign, with each flaw of the table as a branch that can be switched
//! on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "src/flaw.rs"]
pub mod flaw;
#[path = "src/flaws.rs"]
pub mod flaws;

use flaw::Flaw;
use flaws::FLAWS;

const MODULES: [&str; 2] = ["election", "campaign"];

fn main() {
    let source = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../src").canonicalize().unwrap();
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/flaw.rs");
    println!("cargo::rerun-if-changed=src/flaws.rs");
    let mut applied = vec![false; FLAWS.len()];
    let mut modules = String::new();
    for module in MODULES {
        println!("cargo::rerun-if-changed={}", source.join(module).display());
        let _ = fs::remove_dir_all(out.join(module));
        copy(&source, &out, Path::new(module), &mut applied);
        let path = out.join(module).join("mod.rs");
        writeln!(modules, "#[path = {path:?}]\n#[allow(clippy::all, unused)]\npub mod {module};").unwrap();
    }
    for (flaw, applied) in FLAWS.iter().zip(applied) {
        assert!(applied, "flaw {:?}: file {} does not exist", flaw.name, flaw.file);
    }
    fs::write(out.join("modules.rs"), modules).unwrap();
}

/// Copies the folder `path` from `source` to `out`, with the flaws of its files.
fn copy(source: &Path, out: &Path, path: &Path, applied: &mut [bool]) {
    fs::create_dir_all(out.join(path)).unwrap();
    for entry in fs::read_dir(source.join(path)).unwrap() {
        let path = path.join(entry.unwrap().file_name());
        if source.join(&path).is_dir() {
            copy(source, out, &path, applied);
        } else {
            let text = fs::read_to_string(source.join(&path)).unwrap();
            fs::write(out.join(&path), with_flaws(&path, &text, applied)).unwrap();
        }
    }
}

/// Returns `text` with a branch for each flaw of this file. Flaws may replace the same code, but not overlap otherwise.
fn with_flaws(path: &Path, text: &str, applied: &mut [bool]) -> String {
    let mut places: Vec<(usize, usize, Vec<usize>)> = Vec::new();
    for (number, flaw) in FLAWS.iter().enumerate().filter(|(_, flaw)| Path::new(flaw.file) == path) {
        applied[number] = true;
        let found: Vec<usize> = text.match_indices(flaw.original).map(|(at, _)| at).collect();
        let [start] = found[..] else {
            panic!(
                "flaw {:?}: {} must contain its original code once, found it {} times: {}",
                flaw.name,
                flaw.file,
                found.len(),
                flaw.original
            );
        };
        let end = start + flaw.original.len();
        match places.iter_mut().find(|(a, b, _)| start < *b && *a < end) {
            Some((a, b, numbers)) if (*a, *b) == (start, end) => numbers.push(number),
            Some((.., others)) => {
                panic!("flaw {:?}: its code overlaps that of {:?}", flaw.name, FLAWS[others[0]].name)
            }
            None => places.push((start, end, vec![number])),
        }
    }
    places.sort();
    let (mut flawed, mut copied) = (String::new(), 0);
    for (start, end, numbers) in places {
        flawed.push_str(&text[copied..start]);
        flawed.push_str("{ ");
        for number in numbers {
            let Flaw { name, flawed: instead, .. } = &FLAWS[number];
            write!(flawed, "if crate::is_active({number} /* {name} */) {{ {instead} }} else ").unwrap();
        }
        write!(flawed, "{{ {} }} }}", &text[start..end]).unwrap();
        copied = end;
    }
    flawed.push_str(&text[copied..]);
    flawed
}
