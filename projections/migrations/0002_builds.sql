-- Blue/green: several builds of one view side by side, of which one serves.
--
-- A build is one version of a view in one generation: generation 0 is built when the version is
-- new, each rebuild is one more. Its rows lie in <view>_v<version>, with _g<generation> behind it
-- from generation 1 on. Tables of later builds are made when the build begins.

-- a rebuild used to empty the table, which is generation 0 now
UPDATE views.checkpoints SET generation = 0;

ALTER TABLE views.checkpoints
    DROP CONSTRAINT checkpoints_pkey,
    ADD PRIMARY KEY (view, version, generation),
    -- built beside the one that serves, to take its place
    ADD COLUMN next boolean NOT NULL DEFAULT false,
    -- when it stopped serving, or was given up
    ADD COLUMN replaced_at timestamptz,
    ADD CONSTRAINT checkpoints_role CHECK (NOT (serving AND next));

-- nor do two builds wait for the same place
CREATE UNIQUE INDEX checkpoints_next ON views.checkpoints (view) WHERE next;
