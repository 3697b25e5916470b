-- Public input of tasks, such as market files, by digest: whichever engine goes on with a task finds it.
-- Not the place for anything secret or personal.
create table ledger.artifacts (
    digest     bytea       primary key check (octet_length(digest) = 32),
    content    bytea       not null,
    created_at timestamptz not null default now()
);
-- most of it is compressed already
alter table ledger.artifacts alter column content set storage external;
comment on column ledger.artifacts.digest is 'SHA-256 of the content';

-- Engines of one ledger share their work; an engine of another ledger on the same brokers has no part in it.
create table ledger.identity (
    one boolean primary key default true check (one),
    id  uuid    not null default gen_random_uuid()
);
insert into ledger.identity default values;
