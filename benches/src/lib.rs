//! The measuring kit: a load generator, hand-written peers to compare with, and a runner that
//! alternates them and prints medians. Linux only: it reads `/proc` and speaks epoll.

pub mod clock;
pub mod sys;

pub mod payload;
pub mod process;
pub mod stats;
pub mod tally;

pub mod conn;
pub mod dial;
pub mod plan;
pub mod swarm;

pub mod churn;
pub mod idle;
pub mod measure;
pub mod steady;

pub mod peer;
pub mod work;

pub mod overload;

pub mod compare;

pub mod pubsub;
