//! Connection management for programs that hold a great many connections.
#![deny(unsafe_code)]
#![deny(missing_docs)]

mod words;

mod parts;

mod core;

mod sys;

mod engine;

mod edge;

mod front;
