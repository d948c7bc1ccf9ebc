//! Every test file is declared, because the one test binary runs only declared modules.

use std::fs;
use std::path::Path;

use crate::support::root;

#[test]
fn no_test_file_is_forgotten() {
    let mut forgotten = Vec::new();
    find_forgotten(&root().join("tests"), "main.rs", &mut forgotten);
    // Programs that tests run are not modules: Cargo.toml declares them.
    let cargo = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    forgotten.retain(|path| !cargo.contains(&format!("path = \"{path}\"")));
    assert!(forgotten.is_empty(), "not declared, so never run: {forgotten:#?}");
}

#[test]
fn model_and_simulation_run_on_the_product_and_its_mutants() {
    let model = "election/model/mod.rs\"]\nmod model;";
    let simulation = "campaign/simulation/mod.rs\"]\nmod simulation;";
    for (target, included) in
        [("model", model), ("model_mutants", model), ("simulation", simulation), ("simulation_mutants", simulation)]
    {
        let text = fs::read_to_string(root().join(format!("tests/mutants/tests/{target}.rs"))).unwrap();
        assert!(text.contains(included), "{target}");
    }
}

fn find_forgotten(folder: &Path, declaring: &str, forgotten: &mut Vec<String>) {
    let declared = fs::read_to_string(folder.join(declaring)).unwrap_or_default();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        // Targets of tests/mutants include it, as the test above checks.
        let is_included = path.ends_with("tests/election/model") || path.ends_with("tests/campaign/simulation");
        let is_module = path.extension().is_some_and(|e| e == "rs") || path.join("mod.rs").exists();
        if is_module
            && !is_included
            && path.file_name().unwrap() != declaring
            && !declared.contains(&format!("mod {name};"))
        {
            forgotten.push(path.strip_prefix(root()).unwrap().display().to_string());
        }
        if path.join("Cargo.toml").exists() {
            // A separate package: Cargo finds the files in its `tests` folder.
            find_forgotten(&path.join("src"), "lib.rs", forgotten);
        } else if path.is_dir() {
            find_forgotten(&path, "mod.rs", forgotten);
        }
    }
}
