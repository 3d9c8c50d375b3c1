//! What becomes of a program that was written as async tasks.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/porting.md")]
