mod arguments;
mod exec;
mod run;
