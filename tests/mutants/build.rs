//! Copies the election's and the campaign's sources with each flaw of the table as a branch that can be switched on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "src/flaw.rs"]
pub mod flaw;
#[path = "src/flaws.rs"]
pub mod flaws;

use flaw::Flaw;
use flaws::FLAWS;

const ROOMS: [&str; 2] = ["election", "campaign"];

fn main() {
    let product = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../src").canonicalize().unwrap();
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/flaw.rs");
    println!("cargo::rerun-if-changed=src/flaws.rs");
    let mut applied = vec![false; FLAWS.len()];
    let mut rooms = String::new();
    for room in ROOMS {
        println!("cargo::rerun-if-changed={}", product.join(room).display());
        let _ = fs::remove_dir_all(out.join(room));
        copy(&product, &out, Path::new(room), &mut applied);
        let path = out.join(room).join("mod.rs");
        writeln!(rooms, "#[path = {path:?}]\n#[allow(clippy::all, unused)]\npub mod {room};").unwrap();
    }
    for (flaw, applied) in FLAWS.iter().zip(applied) {
        assert!(applied, "flaw {:?}: there is no file {}", flaw.name, flaw.file);
    }
    fs::write(out.join("rooms.rs"), rooms).unwrap();
}

/// Copies the folder `path` of `product` to `out`, with the flaws of its files.
fn copy(product: &Path, out: &Path, path: &Path, applied: &mut [bool]) {
    fs::create_dir_all(out.join(path)).unwrap();
    for entry in fs::read_dir(product.join(path)).unwrap() {
        let path = path.join(entry.unwrap().file_name());
        if product.join(&path).is_dir() {
            copy(product, out, &path, applied);
        } else {
            let text = fs::read_to_string(product.join(&path)).unwrap();
            fs::write(out.join(&path), with_flaws(&path, &text, applied)).unwrap();
        }
    }
}

/// `text` with a branch for each flaw of this file. Flaws may share a place, but not overlap otherwise.
fn with_flaws(path: &Path, text: &str, applied: &mut [bool]) -> String {
    let mut places: Vec<(usize, usize, Vec<usize>)> = Vec::new();
    for (number, flaw) in FLAWS.iter().enumerate().filter(|(_, flaw)| Path::new(flaw.file) == path) {
        applied[number] = true;
        let found: Vec<usize> = text.match_indices(flaw.original).map(|(at, _)| at).collect();
        let [start] = found[..] else {
            panic!(
                "flaw {:?}: {} has its text {} times, not once: {}",
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
                panic!("flaw {:?}: its text overlaps that of {:?}", flaw.name, FLAWS[others[0]].name)
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
