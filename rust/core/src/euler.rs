//! euler
