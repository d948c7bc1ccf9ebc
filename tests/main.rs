//! One test binary for everything, so that a real API server is brought up once. The rooms mirror `src`.

mod api;
mod candidate;
mod e2e;
mod election;
mod group;
mod house;
mod operator;
mod support;
