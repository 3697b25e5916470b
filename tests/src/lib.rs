//! House rules and tests with real servers
