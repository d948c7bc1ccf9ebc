mod scenarios;
mod simulation;
mod timing;
