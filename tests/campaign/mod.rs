mod answers;
mod answers_server;
mod driver;
mod lease;
