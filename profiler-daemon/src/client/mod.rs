//! The commands that talk to a daemon: one function each, data on stdout, talk on stderr.

mod capture;
mod connect;
mod diff;
mod failure;
mod findings;
mod fit;
mod flamegraph;
mod heatmap;
mod list;
mod output;
mod report;
mod status;
mod summary;
mod table;
mod times;
mod top;
mod watch;

pub use capture::capture;
pub use diff::diff;
pub use failure::Failure;
pub use findings::print_findings;
pub use flamegraph::flamegraph;
pub use heatmap::heatmap;
pub use list::list;
pub use output::complain;
pub use report::report;
pub use status::status;
pub use top::top;
pub use watch::watch;

#[cfg(test)]
mod tests;
