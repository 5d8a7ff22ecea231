//! The control plane of local Daytona: REST API, sandbox state machine, toolbox proxy, fault injection.
//!
//! It behaves as Daytona's server 0.190 does, with the additions that newer SDKs need; where it cannot do something it
//! says so with a 400 and never ignores it.
//!
//! From the outside in:
//!
//! - [`LocalServer`] ([`server`]): a server with its socket, key and directory; [`serve`] and [`app`] below it
//! - [`connection`]: accepts and ends connections
//! - [`error`], [`requests`], [`inject`], [`auth`], [`throttle`]: what every request passes, in this order
//! - [`handlers`]: the routes; [`extract`], [`validate`], [`list`] serve them
//! - [`proxy`], [`preview`]: the way into sandboxes
//! - [`create`], [`lifecycle`], [`resize`], [`automation`]: what happens to sandboxes
//! - [`storage`], [`builds`], [`images`]: build contexts, what is built of them, and where root file systems come from
//! - [`state`], [`record`], [`snapshots`], [`access`], [`quota`]: what is stored
//! - [`options`], [`clock`], [`faults`]: what a user of the library gives
#![expect(rustdoc::private_intra_doc_links, reason = "the map is for readers of the source")]

mod access;
mod auth;
mod automation;
mod builds;
mod clock;
mod connection;
mod create;
mod error;
mod extract;
mod faults;
mod handlers;
mod images;
mod inject;
mod lifecycle;
mod list;
mod network;
mod options;
mod origin;
mod preview;
mod proxy;
mod quota;
mod record;
mod requests;
mod resize;
mod server;
mod snapshots;
mod state;
mod storage;
mod throttle;
mod timestamp;
mod validate;
mod volumes;

pub use clock::{Clock, ManualClock, SystemClock};
pub use faults::{Fault, FaultRule, QuotaResource};
pub use options::{DockerChoice, ImageSource, LocalOptions, Quota, RateLimits, Resources};
pub use server::{LocalServer, app, serve};
pub use state::{ControlPlane, Statistics};
