//! The ledger in Postgres: append, dispatch, read port, hash chain, migrations
