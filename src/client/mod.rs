//! How we talk.
