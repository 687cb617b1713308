//! Generated code of `proto/`: the public API `profiler.v1`, and the published schema of pprof.
#![expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    reason = "the generators decide; what a message means stands in the .proto files"
)]

tonic::include_proto!("profiler.v1");

/// Descriptors of `profiler.v1` and of what it imports, as the reflection service hands them out.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/profiler_descriptor.bin"));

/// Messages of `perftools.profiles`: the pprof format.
pub mod pprof {
    tonic::include_proto!("perftools.profiles");
}
