-- Tells at the start whether an engine has the master key that wrapped the subject keys.
create table keys.master (
    one   boolean primary key default true check (one),
    check_value bytea not null
);
comment on column keys.master.check_value is 'HMAC-SHA-256 of a fixed text under the master key; says nothing about the key itself';
