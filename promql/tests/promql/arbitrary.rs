//! Arbitrary.
