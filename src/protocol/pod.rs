//! What the operator adds to pods of modes Exec and Sidecar, by name.

/// The prefix of the names of containers and volumes that the operator adds, in this version or a later one.
pub const RESERVED_NAME_PREFIX: &str = "k8sensus-";
/// The volume that holds the candidate program, in mode Exec.
pub const VOLUME: &str = "k8sensus";
/// The init container that copies the candidate program into the volume, in mode Exec.
pub const INSTALLER: &str = "k8sensus-install";
/// The candidate's container in mode Sidecar.
pub const SIDECAR: &str = "k8sensus-sidecar";

/// The folder at or below which users may not mount anything.
pub const FOLDER: &str = ".k8sensus";
/// The mount path of the volume: [`FOLDER`] at the root.
pub const MOUNT: &str = "/.k8sensus";
/// The candidate program: the process of the container in mode Exec.
pub const PROGRAM: &str = "/.k8sensus/k8sensus";
/// The file that the candidate locks. A free lock shows that no process of a former start of the container is left.
pub const LOCK: &str = "/.k8sensus/lock";
/// The file with the API server's URL, written by the installer.
pub const API_SERVER: &str = "/.k8sensus/api-server";
