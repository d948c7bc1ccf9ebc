//! Names that one program writes and another one reads, through processes or API objects. They are constants without
//! IO, so that every module may import them and none has a copy of its own.
//!
//! - [`lease`]: the annotations of a Lease, the name of a term, the holder of a recreated Lease.
//! - [`environment`]: the environment variables of candidates, their programs and the operator.
//! - [`pod`]: the containers, the volume and the files that the operator adds to pods.
//! - [`paths`]: the paths of the HTTP servers.
//!
//! Names of the ElectionGroup itself (its labels, annotations, condition types and reasons) are in `api::names`.
//!
//! Changing a value breaks candidates, operators and users of other versions: it needs an entry in the CHANGELOG.

pub mod environment;
pub mod lease;
pub mod paths;
pub mod pod;
