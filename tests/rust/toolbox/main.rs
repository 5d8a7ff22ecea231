//! The toolbox on a real socket: statuses, bodies and processes, as a client of Daytona's daemon sees them.

mod bulk;
mod execute;
mod files;
mod ports;
mod pty;
mod reaping;
mod server;
mod session;
mod socket;
