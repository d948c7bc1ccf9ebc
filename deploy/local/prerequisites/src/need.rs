//! The list of packages.

/// Something that a machine must have, and the Debian packages that provide it.
#[derive(Debug)]
pub struct Need {
    pub name: &'static str,
    /// Its purpose, to complete "needed for".
    pub purpose: &'static str,
    pub packages: &'static [&'static str],
    pub(crate) found_by: FoundBy,
}

/// How its presence is detected.
#[derive(Debug)]
pub(crate) enum FoundBy {
    /// All of these programs are in the search path.
    Programs(&'static [&'static str]),
    /// pkg-config finds this library.
    Library(&'static str),
    /// This file exists; the path has no leading slash.
    File(&'static str),
    /// Some version's folder below the first path contains the second path.
    Versioned(&'static str, &'static str),
}

pub static C_COMPILER: Need = Need {
    name: "cc",
    purpose: "building runc and pause",
    packages: &["gcc", "libc6-dev"],
    found_by: FoundBy::Programs(&["cc"]),
};

pub static SECCOMP: Need = Need {
    name: "libseccomp",
    purpose: "building runc",
    packages: &["libseccomp-dev", "pkg-config"],
    found_by: FoundBy::Library("libseccomp"),
};

static IP: Need =
    Need { name: "ip", purpose: "the node's network", packages: &["iproute2"], found_by: FoundBy::Programs(&["ip"]) };

static IPTABLES: Need = Need {
    name: "iptables",
    purpose: "the node's Services",
    packages: &["iptables"],
    found_by: FoundBy::Programs(&["iptables"]),
};

static NAMESPACES: Need = Need {
    name: "nsenter and mount",
    purpose: "the node's namespaces",
    packages: &["util-linux", "mount"],
    found_by: FoundBy::Programs(&["nsenter", "mount"]),
};

static POSTGRESQL: Need = Need {
    name: "PostgreSQL",
    purpose: "the tests of fencing and of the sample with a database",
    packages: &["postgresql"],
    found_by: FoundBy::Versioned("usr/lib/postgresql", "bin/postgres"),
};

static BUSYBOX: Need = Need {
    name: "/bin/busybox",
    purpose: "the images of the samples",
    packages: &["busybox-static"],
    found_by: FoundBy::File("bin/busybox"),
};

static PYTHON: Need = Need {
    name: "/usr/bin/python3",
    purpose: "the images of the samples and a test of file leases",
    packages: &["python3"],
    found_by: FoundBy::File("usr/bin/python3"),
};

/// The needs of a node besides its programs.
pub static NODE: [&Need; 3] = [&IP, &IPTABLES, &NAMESPACES];

/// The needs of the tests besides a node.
pub static TESTS: [&Need; 3] = [&POSTGRESQL, &BUSYBOX, &PYTHON];
