//! One test binary for everything, so that a real API server is brought up once. The folders mirror `src`.

#![allow(clippy::disallowed_methods, reason = "these tests wait for real processes in real time")]

mod api;
mod architecture;
mod campaign;
mod candidate;
mod e2e;
mod election;
mod examples;
mod group;
mod mixed;
mod operator;
mod plugin;
mod support;
