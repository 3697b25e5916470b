-- The queue of jobs: an index over the events of jobs, rebuilt from them whenever somebody empties it.
-- Only claims (claimable_at, claimed_by) and paused queues are nowhere else; they say who may try,
-- and the ledger decides.
create table ledger.jobs (
    position        bigint      not null,
    submitted_at_us bigint      not null,
    ended_at_us     bigint,
    claimable_at    timestamptz not null,
    queue           smallint    not null check (queue between 0 and 2),
    attempt         integer     not null default 0,
    waits           integer     not null default 0,
    job_id          text        not null collate "C",
    status          text        not null collate "C",
    kind            text        not null collate "C",
    unique_key      text        collate "C",
    claimed_by      text        collate "C",
    because         text        collate "C",
    reason          text        collate "C",
    constraint jobs_id primary key (job_id),
    constraint jobs_position unique (position)
);
create index jobs_claimable on ledger.jobs (queue, claimable_at, position)
    where status in ('queued', 'running');
create index jobs_unique on ledger.jobs (unique_key, position) where unique_key is not null;
create index jobs_decided on ledger.jobs (position)
    where status = 'blocked' and (waits = 0 or because is not null);
create index jobs_open on ledger.jobs (queue, status)
    where status in ('blocked', 'queued', 'running', 'in_doubt');
-- rows change often and are small: room for new versions on the same page
alter table ledger.jobs set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
comment on column ledger.jobs.claimable_at is
    'a worker may claim it from here on: due time, or end of the lease of whoever has it';

create table ledger.job_waits (
    waits_for text not null collate "C",
    job_id    text not null collate "C",
    constraint job_waits_pair primary key (waits_for, job_id)
);
create index job_waits_job on ledger.job_waits (job_id);

create table ledger.job_queues (
    queue     smallint    primary key check (queue between 0 and 2),
    paused_by text        not null,
    paused_at timestamptz not null default now()
);

-- how far the events are in the tables above
create table ledger.job_feed (
    one      boolean primary key default true check (one),
    position bigint  not null default 0
);
insert into ledger.job_feed default values;
