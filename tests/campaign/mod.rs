mod callbacks;
mod driver;
mod guard;
mod lease;
mod seeds;
mod server;
mod simulation;
