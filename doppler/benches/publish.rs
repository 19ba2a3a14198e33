//! Publishing.
fn main() {}
