-- Metadata definitions. Everything in a namespace goes with it; whoever changes any of it holds the namespace's row
-- lock. Identities tell the order in which rows came: one statement makes many rows at one time.
CREATE TABLE metadef_namespaces (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text        NOT NULL UNIQUE CHECK (char_length(name) BETWEEN 1 AND 80),
    display_name text,
    description  text,
    visibility   text        NOT NULL CHECK (visibility IN ('public', 'private')),
    protected    boolean     NOT NULL,
    owner        text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX metadef_namespaces_by_created ON metadef_namespaces (created_at, id);

-- Types of resource are known by their names alone. They stay when nothing applies to them any more.
CREATE TABLE metadef_resource_types (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    name       text        PRIMARY KEY CHECK (char_length(name) BETWEEN 1 AND 80),
    -- Made by files that were loaded, not by clients.
    protected  boolean     NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE metadef_associations (
    id                bigint GENERATED ALWAYS AS IDENTITY,
    namespace_id      bigint      NOT NULL REFERENCES metadef_namespaces (id) ON DELETE CASCADE,
    name              text        NOT NULL REFERENCES metadef_resource_types (name),
    prefix            text,
    properties_target text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace_id, name)
);
CREATE INDEX metadef_associations_by_name ON metadef_associations (name, namespace_id);

-- "json", not "jsonb": what is exported again has its members in the order in which they were written.
CREATE TABLE metadef_properties (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    namespace_id bigint      NOT NULL REFERENCES metadef_namespaces (id) ON DELETE CASCADE,
    name         text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 80),
    definition   json        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace_id, name)
);

CREATE TABLE metadef_objects (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    namespace_id bigint      NOT NULL REFERENCES metadef_namespaces (id) ON DELETE CASCADE,
    name         text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 80),
    description  text,
    required     json,
    properties   json,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace_id, name)
);

CREATE TABLE metadef_tags (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    namespace_id bigint      NOT NULL REFERENCES metadef_namespaces (id) ON DELETE CASCADE,
    name         text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 80),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace_id, name)
);
CREATE INDEX metadef_tags_by_created ON metadef_tags (namespace_id, created_at, id);
