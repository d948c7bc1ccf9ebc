mod arguments;
mod exec;
mod observe;
mod observe_live;
mod run;
