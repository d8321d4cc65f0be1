-- Imports. What a client stages stays in the store until it is imported: its job waits in the state 'staged', and the end
-- of its lease is the end of that time. An import is a job, too, by the id of its task; the image names that task for as
-- long as it runs.
ALTER TABLE jobs DROP CONSTRAINT jobs_kind_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_kind_check
    CHECK (kind IN ('upload', 'delete', 'describe', 'locate', 'unlocate', 'stage', 'import'));
CREATE INDEX jobs_staging ON jobs (charged_to) INCLUDE (charged_bytes) WHERE charged_to IS NOT NULL AND state = 'staging';

-- NULL: there was no import.
ALTER TABLE images ADD COLUMN import_task uuid, ADD COLUMN importing_to_stores text[], ADD COLUMN failed_import text[],
    -- Whether the stored bytes are others than those that "checksum" is of.
    ADD COLUMN converted boolean NOT NULL DEFAULT false;
