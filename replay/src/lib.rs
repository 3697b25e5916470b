//! Recorded files, merge, verify, replay and digests
