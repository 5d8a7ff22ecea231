//! What an eval needs.
