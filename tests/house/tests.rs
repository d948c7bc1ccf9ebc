//! One test binary runs only what it is told of.

use std::fs;
use std::path::Path;

use crate::support::root;

#[test]
fn no_test_file_is_forgotten() {
    let mut forgotten = Vec::new();
    look(&root().join("tests"), "main.rs", &mut forgotten);
    // Programs that tests run are no modules: Cargo.toml declares them.
    let cargo = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    forgotten.retain(|path| !cargo.contains(&format!("path = \"{path}\"")));
    assert!(forgotten.is_empty(), "not declared, so never run: {forgotten:#?}");
}

fn look(folder: &Path, declaring: &str, forgotten: &mut Vec<String>) {
    let declared = fs::read_to_string(folder.join(declaring)).unwrap_or_default();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_module = path.extension().is_some_and(|e| e == "rs") || path.join("mod.rs").exists();
        if is_module && path.file_name().unwrap() != declaring && !declared.contains(&format!("mod {name};")) {
            forgotten.push(path.strip_prefix(root()).unwrap().display().to_string());
        }
        if path.is_dir() {
            look(&path, "mod.rs", forgotten);
        }
    }
}
