//! The questions to blazesym, and its answers in our words.

use std::path::PathBuf;

use blazesym::symbolize::source::Source;
use blazesym::symbolize::{Input, Sym, Symbolized, Symbolizer};

use crate::symbolize::wire::{Found, Inlined, MAX_INLINED, MAX_SOURCE};

/// A symbolizer that knows no file yet.
pub(super) fn fresh(inlined: bool) -> Symbolizer {
    Symbolizer::builder()
        .enable_code_info(true)
        .enable_inlined_fns(inlined)
        .enable_demangling(false)
        // Debug files are found by this crate, with checks.
        .set_debug_dirs(Some([] as [PathBuf; 0]))
        .build()
}

/// What blazesym finds at an address of a file.
pub(super) fn ask(blazesym: &Symbolizer, source: &Source<'_>, address: u64) -> Option<Found> {
    match blazesym.symbolize_single(source, Input::VirtOffset(address)) {
        Ok(Symbolized::Sym(sym)) if !sym.name.is_empty() => Some(found(&sym)),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, ?source, "cannot symbolize");
            None
        }
    }
}

fn found(sym: &Sym<'_>) -> Found {
    let file = |info: Option<&blazesym::symbolize::CodeInfo<'_>>| {
        info.map(|info| {
            let mut path = info.to_path().to_string_lossy().into_owned();
            path.truncate(path.floor_char_boundary(MAX_SOURCE));
            path
        })
    };
    // The outermost come first, and the innermost are the ones that are shown.
    let surplus = sym.inlined.len().saturating_sub(MAX_INLINED);
    Found {
        name: sym.name.to_string(),
        address: sym.addr,
        source: file(sym.code_info.as_deref()),
        inlined: sym
            .inlined
            .iter()
            .skip(surplus)
            .map(|frame| Inlined { name: frame.name.to_string(), source: file(frame.code_info.as_ref()) })
            .collect(),
    }
}
