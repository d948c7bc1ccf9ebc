mod callbacks;
mod driver;
mod guard;
mod lease;
mod server;
