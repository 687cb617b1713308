//! Types and limits that both sides of the kernel line share: `no_std`, plain data only.
#![cfg_attr(not(any(feature = "user", test)), no_std)]
#![forbid(unsafe_code)]

pub mod clock;
pub mod counters;
pub mod layout;
pub mod limits;
pub mod record;
pub mod settings;
pub mod unwind;
