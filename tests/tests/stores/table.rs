//! Which fact holds where, and why not: what the tests expect and what docs/CONTRACT.md says.

use crate::facts::Fact;
use crate::store::Kind;

/// What the suite expects of one fact on one store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    Holds,
    /// It cannot, in this way.
    Fails {
        how: &'static str,
        why: &'static str,
    },
    /// The question makes no sense there.
    Absent(&'static str),
}

use Expected::{Absent, Fails, Holds};

const NO_DATABASE: Expected = Absent("has no database");

/// The table: memory, `postgres-es`, and the ledger (through both of its ways, where they differ).
pub(crate) fn expected(fact: Fact, kind: Kind) -> Expected {
    match kind {
        Kind::Memory => memory(fact),
        Kind::Stock => stock(fact),
        Kind::Cqrs | Kind::Port => ledger(fact),
    }
}

fn memory(fact: Fact) -> Expected {
    match fact {
        Fact::OneWinner | Fact::ManyWriters => Fails {
            how: "both win",
            why: "`MemStore::commit` looks at no version: both writers are told that they won, and the \
                  history has two events with one sequence",
        },
        Fact::CommandOnce => Fails {
            how: "takes effect twice",
            why: "metadata is kept and never looked at",
        },
        Fact::NulInId => Fails {
            how: "takes it",
            why: "any string is a key of its map",
        },
        Fact::Positions => Fails {
            how: "no position",
            why: "a map from id to events; nothing orders the ids",
        },
        Fact::ReaderDies => Fails {
            how: "lost",
            why: "queries are called once, in the process that committed",
        },
        Fact::AllOrNothing
        | Fact::OtherViolation
        | Fact::DamageIsTold
        | Fact::AppendOnly
        | Fact::ChangeIsFound => NO_DATABASE,
        Fact::CommitOrder => Absent("has no way to read everything"),
        _ => Holds,
    }
}

fn stock(fact: Fact) -> Expected {
    match fact {
        Fact::CommandOnce => Fails {
            how: "takes effect twice",
            why: "metadata is a column that nothing reads and no index covers; a caller whose answer was \
                  lost cannot repeat safely",
        },
        Fact::UnicodePayload => Fails {
            how: "fails",
            why: "PostgreSQL's JSON has no NUL: an event whose text has one is refused with a technical \
                  error",
        },
        Fact::OtherViolation => Fails {
            how: "reported as a conflict",
            why: "every SQLSTATE 23505 becomes `AggregateConflict` (`src/error.rs`), whichever index it \
                  comes from; a caller that tries again on a conflict does so for ever",
        },
        Fact::Positions => Fails {
            how: "no position",
            why: "the table has type, id and sequence; no column orders two aggregates",
        },
        Fact::CommitOrder => Fails {
            how: "another order",
            why: "`all_events` is `ORDER BY sequence`: first events of all aggregates, then second ones",
        },
        Fact::ReaderDies => Fails {
            how: "lost",
            why: "`Query::dispatch` is called after the commit, by the process that committed, and cannot \
                  fail; what it missed comes only with a replay of everything from the start, and nothing \
                  says that one is needed",
        },
        Fact::DamageIsTold => Fails {
            how: "left out in silence",
            why: "`QueryReplay` hands an event that does not decode to an error handler that is not set, \
                  goes on, and returns `Ok`",
        },
        Fact::AppendOnly => Fails {
            how: "changes it",
            why: "the table is an ordinary one",
        },
        Fact::ChangeIsFound => Fails {
            how: "nothing to check with",
            why: "rows carry no hash",
        },
        _ => Holds,
    }
}

fn ledger(fact: Fact) -> Expected {
    match fact {
        Fact::HugePayload => Fails {
            how: "refused with its length",
            why: "an event has at most 1 MiB, so that it fits a Kafka record everywhere; the command gets \
                  `payload-too-large`",
        },
        Fact::UnicodeId => Fails {
            how: "refused by name",
            why: "ids are keys of Kafka records and parts of file names and URLs: letters, digits and \
                  `. _ : / @ + -`; others get `invalid-id` before anything is written",
        },
        Fact::AnyMetadata => Fails {
            how: "refused by name",
            why: "the chain covers a header with fixed fields; what has no field is refused with \
                  `unknown-field`, not dropped",
        },
        _ => Holds,
    }
}

const KINDS: [Kind; 4] = [Kind::Memory, Kind::Stock, Kind::Cqrs, Kind::Port];

const HEAD: &str = "# The contract of stores

What a store of events does, and which store does it. Each row is a test that runs against each store (`tests/tests/stores`); where a store
cannot hold a fact, the test asserts that it fails in just that way. So this page cannot drift: it is made from the table that the
tests use, and a test compares them.

- **memory** is `MemStore` of `cqrs-es` 0.5.0.
- **postgres-es** is `PersistedEventStore` with `PostgresEventRepository` of `postgres-es` 0.5.0, on its own table.
- **ledger** is ours: through `cqrs-es`'s store trait (`sovereign_event_store::CqrsStore`, on which `CqrsFramework` runs), and through
  its command port.

| fact | memory | postgres-es | ledger, cqrs-es | ledger, commands |
|---|---|---|---|---|
";

const FOOT: &str = "
To look for yourself: `make build`, then
`target/debug/with-servers cargo test -p sovereign-tests --test stores` (the build folder is `$CARGO_TARGET_DIR`).
After a change of the table, `SOVEREIGN_BLESS=1` writes this page.
";

/// The page.
pub(crate) fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut notes: Vec<(&str, String)> = Vec::new();
    for fact in Fact::ALL {
        let mut row = format!("| {} |", fact.sentence());
        for kind in KINDS {
            let cell = match expected(*fact, kind) {
                Holds => "yes".to_owned(),
                Absent(why) => format!("({why})"),
                Fails { how, why } => {
                    let name = match kind {
                        Kind::Memory => "memory",
                        Kind::Stock => "postgres-es",
                        Kind::Cqrs | Kind::Port => "ledger",
                    };
                    let note = format!("**{name}**: {why}");
                    let known = notes.iter().position(|(_, n)| *n == note);
                    let number = known.unwrap_or_else(|| {
                        notes.push((fact.sentence(), note));
                        notes.len() - 1
                    });
                    format!("no: {how} [{0}](#{0})", number + 1)
                }
            };
            row.push_str(&format!(" {cell} |"));
        }
        page.push_str(&row);
        page.push('\n');
    }
    page.push_str("\n## Why not\n\n");
    for (index, (sentence, note)) in notes.iter().enumerate() {
        let number = index + 1;
        page.push_str(&format!(
            "{number}. <a id=\"{number}\"></a>{sentence}. {note}.\n"
        ));
    }
    page.push_str(FOOT);
    page
}
