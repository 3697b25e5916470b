//! Keeps librdkafka from a write behind its own memory (its issue 5280; the code came with 2.5).
//!
//! A broker that refuses a Fetch because it is not the leader may say who is (KIP-951). If it says
//! of a partition that nobody is, as brokers do while they start, librdkafka counts that partition,
//! fills in nothing for it, and then takes what happens to lie in that memory for a partition's
//! number, leader and epoch. Seen here, with a broker that was killed and came back: consumers that
//! stay silent for ever on a partition whose leader's epoch is 1,845,523,055, and programs that end
//! with a segmentation fault in `rd_kafka_metadata_update_op`.
//!
//! So these hints are not taken: the linker puts [`ignored`]'s counter in the place of that function
//! (`--wrap`, in the `build.rs` of each program that links librdkafka). Nothing is lost by that:
//! librdkafka asks for the metadata anew whenever it is told that a broker is not the leader, which
//! is how it did before version 2.5.
//!
//! To be removed with the first release of librdkafka that sets `partition_cnt` to what it filled.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static IGNORED: AtomicU64 = AtomicU64::new(0);

/// How many hints this process was given and did not take. Calling this also makes sure that the
/// replacement is linked.
pub fn ignored() -> u64 {
    IGNORED.load(Ordering::Relaxed)
}

/// `RD_KAFKA_OP_RES_HANDLED`: whoever called frees the hint.
const HANDLED: c_int = 1;

#[allow(
    unsafe_code,
    reason = "a name that C calls; it touches neither argument"
)]
#[unsafe(no_mangle)]
extern "C" fn __wrap_rd_kafka_metadata_update_op(_: *mut c_void, _: *mut c_void) -> c_int {
    IGNORED.fetch_add(1, Ordering::Relaxed);
    HANDLED
}
