//! Bearer tokens (RFC 6750) over HTTP: whether a caller showed the right one.

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq as _;

use crate::config::Secret;

/// Whether the caller showed this token. Compares in a time that says nothing about it but its
/// length.
pub(super) fn authorised(headers: &HeaderMap, token: &Secret) -> bool {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    shown.is_some_and(|(_, shown)| shown.trim().as_bytes().ct_eq(token.expose().as_bytes()).into())
}
