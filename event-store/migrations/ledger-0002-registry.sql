-- Store of the Confluent-compatible schema registry.
create table ledger.registry_schemas (
    id     integer generated always as identity primary key,
    schema text not null collate "C",
    digest bytea not null unique
);
comment on column ledger.registry_schemas.digest is 'SHA-256 of the normalized schema: text of any length in a unique index';

create table ledger.registry_versions (
    subject   text    not null collate "C",
    version   integer not null,
    schema_id integer not null references ledger.registry_schemas (id),
    deleted   boolean not null default false,
    primary key (subject, version)
);
create index registry_versions_schema on ledger.registry_versions (schema_id);

-- subject '' is the global level
create table ledger.registry_config (
    subject       text primary key collate "C",
    compatibility text not null
);
insert into ledger.registry_config values ('', 'BACKWARD');

create table ledger.registry_mode (
    subject text primary key collate "C",
    mode    text not null
);
insert into ledger.registry_mode values ('', 'READWRITE');
