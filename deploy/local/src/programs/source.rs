//! Go programs from sources outside of this crate, of a test or a bench.

use std::fs;
use std::path::{Path, PathBuf};

use k8sensus_prerequisites::recipe::go_version_in;
use k8sensus_prerequisites::{cache, is_program, missing_go_message};
use sha2::{Digest, Sha256};

use super::build;
use crate::error::{At, Error};

/// Returns the program of the Go module in `folder`, named after the folder; builds it once for each state of its
/// sources.
///
/// Only `go.mod`, `go.sum` and the Go files count as sources. There is one package, in the module's root, without C
/// code. The first build prints its progress to standard error.
///
/// # Errors
/// [`Error::Prerequisites`] if there is no Go that can build it, [`Error::Build`] with the end of the compiler's
/// output.
pub fn go_program(folder: &Path) -> Result<PathBuf, Error> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sources = sources(folder)?;
    let key = format!("{name}-{}", digest(&sources));
    let program = cache().join(&key).join(&name);
    if is_program(&program) {
        return Ok(program);
    }
    let go_mod = sources.iter().find(|(file, _)| file == "go.mod").map_or("", |(_, text)| text);
    if let Some(line) = missing_go_message(go_version_in(go_mod), &name) {
        return Err(Error::Prerequisites { missing: vec![line] });
    }
    build::go(&build::Module {
        title: format!("building {name}"),
        folder: key,
        package: ".",
        files: sources.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect(),
        tags: "",
        ldflags: "-s -w",
        cgo: false,
        seconds_on_two_cores: 60,
        programs: &[&name],
    })?;
    Ok(program)
}

/// Returns the module's files, sorted by name.
fn sources(folder: &Path) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).at("reading", folder)?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file == "go.mod" || file == "go.sum" || file.ends_with(".go") {
            let text = fs::read_to_string(entry.path()).at("reading", entry.path())?;
            found.push((file, text));
        }
    }
    found.sort();
    Ok(found)
}

fn digest(sources: &[(String, String)]) -> String {
    let mut hash = Sha256::new();
    for (file, text) in sources {
        for part in [file, text] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_change_yields_another_program() {
        let folder = tempfile::tempdir().unwrap();
        let key = || digest(&sources(folder.path()).unwrap());
        fs::write(folder.path().join("go.mod"), "module kestrel\n").unwrap();
        fs::write(folder.path().join("main.go"), "package main\n").unwrap();
        let first = key();
        fs::write(folder.path().join("README.md"), "not a source").unwrap();
        assert_eq!(key(), first);
        fs::write(folder.path().join("main.go"), "package main // changed\n").unwrap();
        assert_ne!(key(), first);
    }

    #[test]
    fn folder_without_sources_is_named_in_the_error() {
        let error = go_program(Path::new("/nowhere/kestrel")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/kestrel"), "{error}");
    }
}
