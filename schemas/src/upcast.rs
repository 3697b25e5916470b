//! Old versions of events, brought up to the newest. A version without its upcaster here does not
//! compile, because the generated decoder calls `From`.

use crate::events::{
    ApprovalRequested, ApprovalRequestedRef, ApprovalRequestedV1, ApprovalRequestedV1Ref,
    JobSubmitted, JobSubmittedRef, JobSubmittedV1, JobSubmittedV1Ref, MarketObserved,
    MarketObservedRef, MarketObservedV1, MarketObservedV1Ref, StateTransitioned,
    StateTransitionedRef, StateTransitionedV1, StateTransitionedV1Ref, ThoughtRecorded,
    ThoughtRecordedRef, ThoughtRecordedV1, ThoughtRecordedV1Ref, TransitionRefused,
    TransitionRefusedRef, TransitionRefusedV1, TransitionRefusedV1Ref,
};

/// One body for the owned and for the borrowed form, so that they cannot differ.
macro_rules! upcast {
    ($(#[$doc:meta])* ($owned:ident, $borrowed:ident) => ($new:ident, $new_borrowed:ident), |$old:ident| $fields:tt) => {
        $(#[$doc])*
        impl From<$owned> for $new {
            fn from($old: $owned) -> Self {
                Self $fields
            }
        }

        $(#[$doc])*
        impl<'a> From<$borrowed<'a>> for $new_borrowed<'a> {
            #[inline]
            fn from($old: $borrowed<'a>) -> Self {
                Self $fields
            }
        }
    };
}

upcast!(
    /// Version 1 knew daily bars only and named them by their day.
    (MarketObservedV1, MarketObservedV1Ref) => (MarketObserved, MarketObservedRef), |old| {
        instrument: old.instrument,
        opened_at: old.date.midnight(),
        interval_s: 86_400,
        open: old.open,
        high: old.high,
        low: old.low,
        close: old.close,
        volume: old.volume,
    }
);

upcast!(
    /// Version 1 cannot be granted: it says neither who wants the action nor how many people must
    /// approve.
    (ApprovalRequestedV1, ApprovalRequestedV1Ref) => (ApprovalRequested, ApprovalRequestedRef), |old| {
        action: old.action,
        target_id: old.target_id,
        action_digest: old.action_digest,
        amount: old.amount,
        currency: old.currency,
        policy_version: old.policy_version,
        requested_by: old.requested_by,
        expires_at: old.expires_at,
        on_behalf_of: None,
        department: Default::default(),
        asset: Default::default(),
        rule: Default::default(),
        people_needed: 0,
    }
);

/// Version 1 did not know which thoughts are equal.
impl From<ThoughtRecordedV1> for ThoughtRecorded {
    fn from(old: ThoughtRecordedV1) -> Self {
        Self {
            text: old.text,
            likeness: Vec::new(),
        }
    }
}

/// Version 1 did not know which thoughts are equal.
// not by the macro: the old form borrows nothing, and so has no lifetime
impl From<ThoughtRecordedV1Ref> for ThoughtRecordedRef<'_> {
    #[inline]
    fn from(old: ThoughtRecordedV1Ref) -> Self {
        Self {
            text: old.text,
            likeness: &[],
        }
    }
}

upcast!(
    /// Version 1 knew no definitions.
    (StateTransitionedV1, StateTransitionedV1Ref) => (StateTransitioned, StateTransitionedRef), |old| {
        from: old.from,
        to: old.to,
        reason: old.reason,
        definition: 0,
    }
);

upcast!(
    /// Version 1 did not say what forbade it.
    (TransitionRefusedV1, TransitionRefusedV1Ref) => (TransitionRefused, TransitionRefusedRef), |old| {
        from: old.from,
        to: old.to,
        reason: old.reason,
        cause: Default::default(),
    }
);

upcast!(
    /// Version 1 knew no schedules.
    (JobSubmittedV1, JobSubmittedV1Ref) => (JobSubmitted, JobSubmittedRef), |old| {
        kind: old.kind,
        queue: old.queue,
        arguments: old.arguments,
        action_digest: old.action_digest,
        planned: old.planned,
        run_at: old.run_at,
        after: old.after,
        unique_key: old.unique_key,
        attempts_max: old.attempts_max,
        backoff_ms: old.backoff_ms,
        amount: old.amount,
        currency: old.currency,
        schedule: None,
    }
);
