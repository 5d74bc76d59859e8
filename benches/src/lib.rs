//! Holds nothing: the suites are the benches beside it, one question a file.
