//! x
/// y
pub const BIND_SUFFIX_MAX_BYTES: usize = 12;
