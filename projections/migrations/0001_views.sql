-- Views, first version. Made and upgraded by ViewsStore::migrate, in one transaction.
--
-- A table carries the version of its view in its name, so that a new version can be built beside
-- the one that serves; the SQL view without a version shows the one that serves.

-- How far each view has come: the rows of <view>_v<version> are the fold of events 1 to position.
CREATE TABLE views.checkpoints (
    view text NOT NULL,
    version integer NOT NULL,
    -- 0 before the first event
    position bigint NOT NULL CHECK (position >= 0),
    -- of the event at the position; zeros at 0
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    -- how often it was rebuilt
    generation bigint NOT NULL DEFAULT 0,
    -- whether readers get this version
    serving boolean NOT NULL,
    -- for people; no fold reads it
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (view, version)
) WITH (fillfactor = 50);

-- two versions never serve together
CREATE UNIQUE INDEX checkpoints_serving ON views.checkpoints (view) WHERE serving;

CREATE TABLE views.agents_v1 (
    agent_id text COLLATE "C" PRIMARY KEY,
    department integer NOT NULL,
    role text NOT NULL,
    state text NOT NULL,
    thoughts bigint NOT NULL,
    observations bigint NOT NULL,
    transitions bigint NOT NULL,
    transitions_refused bigint NOT NULL,
    last_thought bytea,
    task text,
    task_running boolean NOT NULL,
    task_items_done bigint NOT NULL,
    task_items_total bigint NOT NULL,
    cleared_trade_id text,
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE views.trades_v1 (
    trade_id text COLLATE "C" PRIMARY KEY,
    agent_id text NOT NULL,
    instrument text NOT NULL,
    side text NOT NULL,
    quantity numeric(28,9) NOT NULL,
    price numeric(28,9) NOT NULL,
    amount numeric(28,9) NOT NULL,
    currency text NOT NULL,
    closes text,
    decided_on timestamptz NOT NULL,
    status text NOT NULL,
    verdict text,
    verdict_rule text,
    approval_id text,
    authority text,
    cancel_reason text,
    order_id text,
    fill_price numeric(28,9),
    fill_quantity numeric(28,9),
    commission numeric(28,9),
    filled_at timestamptz,
    exit_trade_id text,
    exit_price numeric(28,9),
    total_commission numeric(28,9),
    profit numeric(28,9),
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE views.approvals_v1 (
    approval_id text COLLATE "C" PRIMARY KEY,
    action text NOT NULL,
    target_id text NOT NULL,
    action_digest text NOT NULL,
    amount numeric(28,9) NOT NULL,
    currency text NOT NULL,
    policy_version integer NOT NULL,
    requested_by text NOT NULL,
    expires_at timestamptz NOT NULL,
    status text NOT NULL,
    decided_by text,
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE views.departments_v1 (
    department integer PRIMARY KEY,
    events bigint NOT NULL,
    events_by_type jsonb NOT NULL,
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX trades_v1_agent ON views.trades_v1 (agent_id, trade_id);

CREATE VIEW views.agents AS SELECT * FROM views.agents_v1;
CREATE VIEW views.trades AS SELECT * FROM views.trades_v1;
CREATE VIEW views.approvals AS SELECT * FROM views.approvals_v1;
CREATE VIEW views.departments AS SELECT * FROM views.departments_v1;

INSERT INTO views.checkpoints (view, version, position, hash, serving)
SELECT view, 1, 0, decode(repeat('00', 32), 'hex'), true
FROM unnest(ARRAY['agents', 'trades', 'approvals', 'departments']) AS view;
