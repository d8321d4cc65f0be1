-- When the data of a location was last read whole and compared with the image's hash, and what came of it. `identity` is
-- the store's: as long as it stays the same, so does the data.
CREATE TABLE image_scrubs (
    image_id    uuid        NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    url         text        NOT NULL,
    hash        text        NOT NULL,
    identity    text        NOT NULL,
    matches     boolean     NOT NULL,
    scrubbed_at timestamptz NOT NULL,
    PRIMARY KEY (image_id, url)
);
