//! What the programs log (rare, off the sampling paths) goes to our own log.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tracing::warn;

/// The reading end of the programs' log.
pub(super) struct ProgramLog(Option<EbpfLogger<&'static dyn log::Log>>);

impl ProgramLog {
    /// Records of the programs go through the `log` facade, which `telemetry` bridges to tracing.
    pub(super) fn take(ebpf: &mut Ebpf) -> Self {
        match EbpfLogger::init(ebpf) {
            Ok(logger) => Self(Some(logger)),
            Err(error) => {
                warn!(%error, "what the eBPF programs log will not be seen");
                Self(None)
            }
        }
    }

    pub(super) fn flush(&mut self) {
        if let Some(logger) = &mut self.0 {
            logger.flush();
        }
    }
}
