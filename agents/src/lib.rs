//! Agent logic as pure functions, and the runner that does the I/O
