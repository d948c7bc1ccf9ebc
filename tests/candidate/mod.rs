mod arguments;
mod bad_input;
mod exec;
mod help;
mod observe;
mod observe_live;
mod restart;
mod run;
