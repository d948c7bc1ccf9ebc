mod driver;
mod lease;
