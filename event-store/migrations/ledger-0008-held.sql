-- Jobs that wait for people are open, too.
drop index ledger.jobs_open;
create index jobs_open on ledger.jobs (queue, status)
    where status in ('held', 'blocked', 'queued', 'running', 'in_doubt');
