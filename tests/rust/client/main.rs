//! The client against a scripted server on a real socket: retries, lost answers, cut bodies, strangers.

mod create;
mod failures;
mod files;
mod lifecycle;
mod server;
mod streams;
mod suspicion;
