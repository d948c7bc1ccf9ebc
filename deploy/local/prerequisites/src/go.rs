//! Checks for a Go toolchain that can build a module.

use std::process::{Command, Stdio};

/// Returns a line about the missing Go version, if the machine has no Go that can build `what`.
pub fn missing_go_message(wanted: &str, what: &str) -> Option<String> {
    let installed = installed_go();
    if installed.as_ref().is_some_and(|go| go.can_build(wanted)) {
        return None;
    }
    let found = installed.as_ref().map_or("none", |go| go.version.as_str());
    Some(format!(
        "Go {wanted} or newer, to build {what} (found: {found}): get it from https://go.dev/dl \
         (the distribution's golang-go is too old)"
    ))
}

#[derive(Debug)]
struct Go {
    version: String,
    /// Whether it fetches the newer Go that a module requires, which is the default since Go 1.21.
    fetches: bool,
}

impl Go {
    fn can_build(&self, wanted: &str) -> bool {
        let found = numbers(&self.version);
        found >= numbers(wanted) || (self.fetches && found >= numbers("1.21"))
    }
}

fn installed_go() -> Option<Go> {
    // Outside of any folder with a go.mod, where Go would report the version that the module requires.
    let output = Command::new("go")
        .args(["env", "GOVERSION", "GOTOOLCHAIN"])
        .current_dir("/")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let version = lines.next()?.trim_start_matches("go").to_owned();
    Some(Go { version, fetches: lines.next().is_some_and(|toolchain| !toolchain.starts_with("local")) })
}

/// Returns the numbers of a version, for comparison: `1.26.8` is `[1, 26, 8]`.
pub(crate) fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map_while(|part| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("1.26.8") > numbers("1.26.0"));
        assert!(numbers("1.9") < numbers("1.26"));
        assert_eq!(numbers("1.27rc1"), [1, 27]);
    }

    #[test]
    fn older_go_suffices_only_if_it_may_fetch_a_newer_one() {
        let go = |version: &str, fetches| Go { version: version.into(), fetches };
        assert!(go("1.26.8", false).can_build("1.26.6"));
        assert!(go("1.22.1", true).can_build("1.26.6"));
        assert!(!go("1.22.1", false).can_build("1.26.6"));
        assert!(!go("1.19.8", true).can_build("1.26.6"));
    }
}
