//! Builds the product's programs and their image from this workspace.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{At, Error, failed, run};
use crate::image::{Image, ImageFile};
use crate::progress::Progress;

/// The image that [`product_image`] writes.
pub const IMAGE: &str = "localhost/k8sensus:dev";

const PROGRAMS: [&str; 2] = ["k8sensus", "k8sensus-operator"];

/// The Cargo profile of the product's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The release profile, with link-time optimisation.
    Dist,
    /// For trials and tests: builds in half the time; the programs are larger and a little slower.
    Demo,
}

impl Profile {
    /// Returns its name in Cargo.toml.
    fn name(self) -> &'static str {
        match self {
            Self::Dist => "dist",
            Self::Demo => "demo",
        }
    }
}

/// Returns the root of the workspace that this crate was built from.
pub fn workspace_root() -> &'static Path {
    let local = Path::new(env!("CARGO_MANIFEST_DIR"));
    local.ancestors().nth(2).unwrap_or(local)
}

/// Builds the product's programs, statically linked, and writes their image to an OCI archive; returns its digest.
pub fn product_image(output: &Path, profile: Profile) -> Result<String, Error> {
    let files = static_programs("--bin", &PROGRAMS, profile)?
        .into_iter()
        .zip(PROGRAMS)
        .map(|(source, name)| ImageFile { source: source.into(), path: name.to_owned(), mode: 0o755 })
        .collect();
    Image { name: IMAGE.to_owned(), entrypoint: vec![format!("/{}", PROGRAMS[0])], files }.write(output)
}

/// Returns a Cargo command in this workspace, as a shell would run it.
///
/// The variables that `cargo test` and `cargo run` set for their program must not reach another build: ring's build
/// script would run again, and half of the dependencies would rebuild, in every such build.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for (name, _) in env::vars_os() {
        if is_of_a_package(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.current_dir(workspace_root());
    command
}

fn is_of_a_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| variable.starts_with(prefix))
}

/// Builds one of the product's programs, statically linked as in its image.
pub fn product_program(name: &str, profile: Profile) -> Result<PathBuf, Error> {
    static_programs("--bin", &[name], profile).map(|mut built| built.swap_remove(0))
}

/// Builds an example of the product's package with the release profile, for comparison with the released programs.
pub fn product_example(name: &str) -> Result<PathBuf, Error> {
    static_programs("--example", &[name], Profile::Dist).map(|mut built| built.swap_remove(0))
}

/// Builds statically linked programs; `kind` is `--bin` or `--example`.
fn static_programs(kind: &str, names: &[&str], profile: Profile) -> Result<Vec<PathBuf>, Error> {
    let about = run(cargo().arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    Progress::note(&format!("building {} for {host}, statically linked", names.join(" and ")));
    let mut command = cargo();
    command
        // With an explicit target, its flags do not reach build scripts and procedural macros, which cannot be static.
        .args(["build", "--profile", profile.name(), "--target", host, "--message-format", "json-render-diagnostics"])
        // Built alone: together with this crate it would get the features that this crate enables in shared
        // dependencies.
        .args(["--package", if kind == "--bin" { "k8sensus-programs" } else { "k8sensus" }])
        .args(names.iter().flat_map(|name| [kind, name]))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().at("running", command.get_program())?;
    if !output.status.success() {
        return Err(failed(&command, output.status, b"see the compiler's messages above"));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    names
        .iter()
        .map(|name| {
            executable(&messages, name)
                .ok_or_else(|| failed(&command, output.status, format!("cargo reported no program {name}").as_bytes()))
        })
        .collect()
}

/// Returns the path of a program from Cargo's messages, because the user chooses the target folder.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let artifact =
        messages.into_iter().find(|message| message["target"]["name"] == name && message["executable"].is_string())?;
    artifact["executable"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_path_is_read_from_cargo_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"kestrel"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"kestrel"},"executable":"/target/dist/kestrel"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages, "kestrel"), Some("/target/dist/kestrel".into()));
        assert_eq!(executable(messages, "heron"), None);
    }

    #[test]
    fn build_in_a_test_does_not_inherit_its_package() {
        let removed: Vec<String> = cargo()
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect();
        assert!(removed.iter().any(|name| name == "CARGO_MANIFEST_DIR"), "{removed:?}");
        assert!(removed.iter().any(|name| name == "CARGO_PKG_VERSION_MAJOR"), "{removed:?}");
        assert!(!is_of_a_package("CARGO_TARGET_DIR") && !is_of_a_package("CARGO_HOME"));
    }

    #[test]
    fn workspace_root_contains_this_crate() {
        assert!(workspace_root().join("deploy/local/Cargo.toml").is_file());
    }
}
