//! Views: pure folds with their tables
