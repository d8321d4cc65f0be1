-- Every id that ever named an image: ids are never reused, also after the image is gone.
CREATE TABLE image_ids (
    id uuid PRIMARY KEY
);

CREATE TABLE images (
    id               uuid PRIMARY KEY REFERENCES image_ids (id),
    status           text        NOT NULL CHECK (status IN ('queued', 'saving', 'uploading', 'importing', 'active', 'deactivated', 'deleted')),
    name             text,
    visibility       text        NOT NULL CHECK (visibility IN ('public', 'community', 'shared', 'private')),
    owner            text,
    protected        boolean     NOT NULL,
    hidden           boolean     NOT NULL,
    container_format text,
    disk_format      text,
    min_disk_gib     integer     NOT NULL CHECK (min_disk_gib >= 0),
    min_ram_mib      integer     NOT NULL CHECK (min_ram_mib >= 0),
    size_bytes       bigint      CHECK (size_bytes >= 0),
    virtual_size_bytes bigint    CHECK (virtual_size_bytes >= 0),
    checksum         text,
    os_hash_algo     text,
    os_hash_value    text,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    version          bigint      NOT NULL DEFAULT 1,
    CHECK (status NOT IN ('active', 'deactivated') OR size_bytes IS NOT NULL)
);

-- A list page is a keyset walk along one of these; each ends with (created_at, id), the tie-breakers.
CREATE INDEX images_by_created ON images (created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_owner ON images (owner, created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_owner_name ON images (owner, coalesce(name, ''), created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_public ON images (created_at, id) WHERE visibility = 'public' AND status <> 'deleted';
CREATE INDEX images_public_by_name ON images (coalesce(name, ''), created_at, id) WHERE visibility = 'public' AND status <> 'deleted';
CREATE INDEX images_community ON images (created_at, id) WHERE visibility = 'community' AND status <> 'deleted';
CREATE INDEX images_by_name ON images (coalesce(name, ''), created_at, id) WHERE status <> 'deleted';

CREATE TABLE image_properties (
    image_id uuid NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    name     text NOT NULL,
    value    text NOT NULL,
    PRIMARY KEY (image_id, name)
);
-- md5, because a value may be longer than an index entry can be.
CREATE INDEX image_properties_by_value ON image_properties (name, md5(value));

CREATE TABLE image_tags (
    image_id uuid NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    value    text NOT NULL,
    PRIMARY KEY (image_id, value)
);
CREATE INDEX image_tags_by_value ON image_tags (value, image_id);

CREATE TABLE image_members (
    image_id   uuid        NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    member     text        NOT NULL,
    status     text        NOT NULL CHECK (status IN ('pending', 'accepted', 'rejected')),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (image_id, member)
);
CREATE INDEX image_members_by_member ON image_members (member, status, image_id);

CREATE TABLE image_locations (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    image_id uuid NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    store    text NOT NULL,
    url      text NOT NULL,
    UNIQUE (image_id, url)
);

-- Work that must not be lost: each row is owned by whoever holds its lease, and by the next gateway
-- when the lease runs out. Times are the database's, so gateways need not agree on a clock.
CREATE TABLE jobs (
    id               uuid        PRIMARY KEY,
    kind             text        NOT NULL CHECK (kind IN ('upload', 'delete', 'describe')),
    image_id         uuid        NOT NULL,
    state            text        NOT NULL,
    payload          jsonb       NOT NULL,
    lease_owner      text,
    -- Grows with every change of owner: a holder of an older token can change nothing any more.
    lease_token      bigint      NOT NULL DEFAULT 1,
    lease_expires_at timestamptz NOT NULL,
    attempts         integer     NOT NULL DEFAULT 0,
    last_error       text,
    created_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX jobs_by_expiry ON jobs (lease_expires_at);
CREATE INDEX jobs_by_image ON jobs (image_id);
-- Two uploads of one image cannot be under way, whatever the code above believes.
CREATE UNIQUE INDEX jobs_one_upload ON jobs (image_id) WHERE kind = 'upload' AND state IN ('writing', 'committing');

-- What happened, written in the transaction in which it happened, for whoever tells the world.
CREATE TABLE events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type       text        NOT NULL,
    image_id   uuid,
    payload    jsonb       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
