-- Whether somebody gave a job up: its worker looks here to end a wait that changes nothing.
alter table ledger.jobs add column aborting boolean not null default false;
create index jobs_aborting on ledger.jobs (claimed_by) where aborting and status = 'running';
