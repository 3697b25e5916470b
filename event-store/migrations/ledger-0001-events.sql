-- The ledger: one totally ordered table, one head row, and what was refused.
--
-- Fixed-width columns come first, so that a row has no padding. Widths: department and event_version
-- are unsigned 16-bit numbers in the header, which a smallint cannot hold.
create table ledger.events (
    position           bigint  not null,
    sequence           bigint  not null,
    recorded_at_us     bigint  not null,
    event_version      integer not null,
    department         integer not null,
    command_events     integer not null,
    event_id           uuid    not null,
    command_id         uuid    not null,
    correlation_id     uuid    not null,
    causation_id       uuid,
    aggregate_type     text    not null collate "C",
    aggregate_id       text    not null collate "C",
    event_type         text    not null collate "C",
    actor              text    not null collate "C",
    schema_fingerprint bytea   not null,
    traceparent        text,
    hash               bytea   not null,
    payload            bytea   not null,
    constraint events_position primary key (position),
    constraint events_sequence unique (aggregate_type, aggregate_id, sequence)
);

-- command_events is the number of the command's events on its first event and 0 on the others, so a
-- command that causes several events takes one index entry, and its last position is known from the first.
create unique index events_command on ledger.events (command_id) where command_events > 0;

-- Sealed text does not compress, and compressing would sit on the writer's path.
alter table ledger.events alter column payload set storage external;
alter table ledger.events alter column hash set storage plain;
alter table ledger.events alter column schema_fingerprint set storage plain;

comment on table ledger.events is
    'append-only; recorded_at_us (microseconds since 1970) never falls from one position to the next';

create table ledger.head (
    one      boolean primary key default true check (one),
    position bigint not null,
    hash     bytea  not null
);
-- every batch updates this row: room on its page keeps the updates off the index
alter table ledger.head set (fillfactor = 10, autovacuum_vacuum_scale_factor = 0,
                             autovacuum_vacuum_threshold = 1000);
insert into ledger.head (position, hash) values (0, decode(repeat('00', 32), 'hex'));

create table ledger.refusals (
    command_id     uuid   primary key,
    problem        jsonb  not null,
    recorded_at_us bigint not null
);

create function ledger.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger is append-only: % of %.% is refused', tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege';
end $$;

create trigger events_keep_rows before update or delete on ledger.events
    for each row execute function ledger.refuse_change();
create trigger events_keep before update or delete or truncate on ledger.events
    for each statement execute function ledger.refuse_change();
create trigger head_keep before delete or truncate on ledger.head
    for each statement execute function ledger.refuse_change();
create trigger refusals_keep before update or delete or truncate on ledger.refusals
    for each statement execute function ledger.refuse_change();
-- also when somebody sets session_replication_role to replica
alter table ledger.events enable always trigger events_keep_rows;
alter table ledger.events enable always trigger events_keep;
alter table ledger.head enable always trigger head_keep;
alter table ledger.refusals enable always trigger refusals_keep;

-- a second fence, which also holds where a trigger was taken away: not even the owner has the right
revoke update, delete, truncate on ledger.events from public, current_user;
revoke update, delete, truncate on ledger.refusals from public, current_user;
revoke delete, truncate on ledger.head from public, current_user;
