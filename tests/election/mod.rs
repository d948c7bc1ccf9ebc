mod deletion;
mod scenarios;
mod simulation;
mod takeover;
mod timing;
