mod answers;
mod answers_server;
mod callbacks;
mod driver;
mod guard;
mod lease;
mod readiness;
mod server;
