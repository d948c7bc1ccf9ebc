//! Ours and unmodified client-go candidates on one Lease of a real API server.

mod fixtures;
