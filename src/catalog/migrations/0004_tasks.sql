-- What the service does for a client that does not wait for it: an administrator's view of imports, now and for a
-- while after their end. Whoever does the work is in `jobs`; a task tells about it, and outlives it.
CREATE TABLE tasks (
    id         uuid        PRIMARY KEY,
    type       text        NOT NULL CHECK (type IN ('import', 'api_image_import', 'location_import')),
    status     text        NOT NULL CHECK (status IN ('pending', 'processing', 'success', 'failure')),
    owner      text,
    user_id    text,
    -- Request that asked for it.
    request_id text,
    -- No reference: a task may outlive its image, and that of type 'import' is older than its image.
    image_id   uuid,
    input      jsonb,
    result     jsonb,
    message    text        NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    -- Of a task that has ended: when it ended. It expires [tasks] time_to_live_h after that.
    updated_at timestamptz NOT NULL
);
CREATE INDEX tasks_by_created ON tasks (created_at, id);
CREATE INDEX tasks_by_image ON tasks (image_id, created_at, id) WHERE image_id IS NOT NULL;
CREATE INDEX tasks_ended ON tasks (updated_at) WHERE status IN ('success', 'failure');

-- Why the last upload failed; nothing once there is data.
ALTER TABLE images ADD COLUMN upload_failure text;
