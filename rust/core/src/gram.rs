//! gram
