//! Pure cqrs-es aggregates: agent, trade, approval
