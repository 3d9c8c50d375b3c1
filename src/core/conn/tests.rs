//! Tests of the record of a connection, in the tiny engine of `rig`.

use std::time::Duration;

use bytes::Bytes;

use super::rig::{HIGH, Rig, id, rules};
use super::*;
use crate::core::post::Post;
use crate::core::shaping::Leave;
use crate::words::config::Limits;
use crate::words::reason::CloseReason;

mod close;
mod deadlines;
mod groups;
mod random;
mod shaped;
mod times;
