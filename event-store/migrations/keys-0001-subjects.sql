-- Subject keys, apart from the ledger: whoever destroys a row here erases all texts of its subject.
create table keys.subjects (
    subject    text   primary key collate "C",
    key_id     uuid   not null unique,
    wrapped    bytea  not null,
    nonce      bytea  not null,
    next_index bigint not null default 0 check (next_index >= 0)
);
comment on column keys.subjects.wrapped is 'the subject key, AES-256-GCM under the master key; the nonce beside it';
comment on column keys.subjects.next_index is 'first leaf index that no process has reserved';
