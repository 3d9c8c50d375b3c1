//! The side-by-side comparison: which rows there are, who competes in them, how one run is made,
//! and the tables that come of it.

pub mod contest;
pub mod options;
pub mod peers;
pub mod rows;
pub mod server;
pub mod strace;
pub mod table;
