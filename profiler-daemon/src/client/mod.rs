//! The commands that talk to a daemon: one function each, data on stdout, talk on stderr.

mod capture;
mod connect;
mod failure;
mod findings;
mod flamegraph;
mod list;
mod output;
mod status;
mod summary;
mod table;
mod times;
mod top;

pub use capture::capture;
pub use failure::Failure;
pub use findings::print_findings;
pub use flamegraph::flamegraph;
pub use list::list;
pub use status::status;
pub use top::top;

#[cfg(test)]
mod tests;
