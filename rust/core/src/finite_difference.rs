//! finite_difference
