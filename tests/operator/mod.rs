mod children;
mod life;
mod refusals;
mod replicas;
mod status;
