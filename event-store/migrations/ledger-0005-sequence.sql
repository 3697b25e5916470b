-- The id first: an insert compares its way down this index, and with the type first, which is the same
-- in almost all rows, each comparison looked at two texts. Nothing is appended while it
-- is built again.
alter table ledger.events
    drop constraint events_sequence,
    add constraint events_sequence unique (aggregate_id, aggregate_type, sequence);
