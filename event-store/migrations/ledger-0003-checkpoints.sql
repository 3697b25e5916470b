-- How far the parts that react to events have come, besides views and relay, which keep theirs
-- where their results are.
create table ledger.checkpoints (
    name     text   primary key collate "C",
    position bigint not null check (position >= 0)
);
