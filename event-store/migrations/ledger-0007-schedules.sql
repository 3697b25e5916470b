-- Which schedule a job is a run of. No job was one before.
alter table ledger.jobs add column schedule text collate "C";
create index jobs_schedule on ledger.jobs (schedule, position) where schedule is not null;
