//! The program sets, their Go modules and their build settings.
//!
//! Each `go.mod` names the packages with `tool` directives; there is no Go code of ours.

pub struct ProgramSet {
    pub name: &'static str,
    pub version: &'static str,
    pub programs: &'static [&'static str],
    pub go_mod: &'static str,
    pub go_sum: &'static str,
    pub tags: &'static str,
    pub ldflags: &'static str,
    /// Whether it has C code: only runc's seccomp filters need that.
    pub cgo: bool,
    /// Measured with empty Go caches on a machine with two cores.
    pub seconds_on_two_cores: u64,
}

const STRIPPED: &str = "-s -w";

pub const KUBERNETES: ProgramSet = ProgramSet {
    name: "kubernetes",
    version: "v1.37.2",
    programs: &[
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
    ],
    go_mod: include_str!("../../programs/kubernetes/go.mod"),
    go_sum: include_str!("../../programs/kubernetes/go.sum"),
    tags: "",
    // Otherwise the programs report v0.0.0, and clients refuse such an old server.
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 \
              -X k8s.io/component-base/version.gitMinor=37 -X k8s.io/component-base/version.gitTreeState=clean",
    cgo: false,
    seconds_on_two_cores: 450,
};

pub const CONTAINERD: ProgramSet = ProgramSet {
    name: "containerd",
    version: "v2.4.2",
    programs: &["containerd", "containerd-shim-runc-v2", "ctr"],
    go_mod: include_str!("../../programs/containerd/go.mod"),
    go_sum: include_str!("../../programs/containerd/go.sum"),
    tags: "no_btrfs no_devmapper no_zfs",
    ldflags: STRIPPED,
    cgo: false,
    seconds_on_two_cores: 107,
};

pub const RUNC: ProgramSet = ProgramSet {
    name: "runc",
    version: "v1.5.2",
    programs: &["runc"],
    go_mod: include_str!("../../programs/runc/go.mod"),
    go_sum: include_str!("../../programs/runc/go.sum"),
    // Pods under the standard `restricted` need the default seccomp profile, which needs libseccomp.
    tags: "seccomp netgo osusergo",
    ldflags: "-s -w -linkmode external -extldflags -static",
    cgo: true,
    seconds_on_two_cores: 36,
};

pub const CNI: ProgramSet = ProgramSet {
    name: "cni",
    version: "v1.9.1",
    programs: &["bridge", "host-local", "loopback", "portmap"],
    go_mod: include_str!("../../programs/cni/go.mod"),
    go_sum: include_str!("../../programs/cni/go.sum"),
    tags: "",
    ldflags: STRIPPED,
    cgo: false,
    seconds_on_two_cores: 13,
};

pub const HELM: ProgramSet = ProgramSet {
    name: "helm",
    version: "v4.3.1",
    programs: &["helm"],
    go_mod: include_str!("../../programs/helm/go.mod"),
    go_sum: include_str!("../../programs/helm/go.sum"),
    tags: "",
    ldflags: STRIPPED,
    cgo: false,
    seconds_on_two_cores: 185,
};

/// The source of our own pause program.
pub const PAUSE_SOURCE: &str = include_str!("../../programs/pause/pause.c");
pub const PAUSE_FOLDER: &str = "pause-v1";

impl ProgramSet {
    /// Returns its folder, relative to the cache: `<name>-<version>`.
    pub fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Returns the version of a program. etcd is in the Kubernetes set, in the version with which Kubernetes is tested.
    pub fn version_of(&self, program: &str) -> &'static str {
        if program == "etcd" { "v3.7.0" } else { self.version }
    }

    /// Returns the minimum Go version for the build, without `go`: `1.26.0`.
    pub fn go_version(&self) -> &'static str {
        go_version_in(self.go_mod)
    }
}

/// Returns the Go version that a `go.mod` requires: `1.26.0`.
pub fn go_version_in(go_mod: &str) -> &str {
    go_mod.lines().find_map(|line| line.strip_prefix("go ")).map_or("", str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&ProgramSet; 5] = [&KUBERNETES, &CONTAINERD, &RUNC, &CNI, &HELM];

    #[test]
    fn every_recipe_has_as_many_programs_as_its_module_has_tools() {
        for set in ALL {
            let block = set.go_mod.split_once("\ntool (").map(|(_, rest)| rest.split_once(')').unwrap().0);
            let tools = block.map_or(1, |block| block.trim().lines().count());
            assert_eq!(set.programs.len(), tools, "{}", set.name);
        }
    }

    #[test]
    fn every_module_requires_the_version_of_its_recipe() {
        for (set, module) in ALL.into_iter().zip([
            "k8s.io/kubernetes",
            "github.com/containerd/containerd/v2",
            "github.com/opencontainers/runc",
            "github.com/containernetworking/plugins",
            "helm.sh/helm/v4",
        ]) {
            assert!(set.go_mod.contains(&format!("{module} {} ", set.version)), "{}", set.name);
            assert!(set.go_version().starts_with("1."), "{}", set.name);
        }
        assert!(KUBERNETES.go_mod.contains(&format!("go.etcd.io/etcd/server/v3 {} ", KUBERNETES.version_of("etcd"))));
        assert!(KUBERNETES.ldflags.contains(&format!("gitVersion={} ", KUBERNETES.version)));
    }
}
