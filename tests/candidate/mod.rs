mod arguments;
mod exec;
mod help;
mod observe;
mod observe_live;
mod run;
