mod deletion;
mod readiness;
mod scenarios;
mod simulation;
mod takeover;
mod timing;
