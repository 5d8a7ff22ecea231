//! Records that the provider and the shim exchange.
