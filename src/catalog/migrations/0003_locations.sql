-- Locations that others register: in an order, with what they say about themselves, and with the answer to the question
-- whether the data goes when the location goes. All that were there before came from uploads.
ALTER TABLE image_locations
    ADD COLUMN position integer NOT NULL DEFAULT 0,
    ADD COLUMN metadata jsonb   NOT NULL DEFAULT '{}',
    ADD COLUMN owned    boolean NOT NULL DEFAULT true;
CREATE INDEX image_locations_by_url ON image_locations (url);

ALTER TABLE jobs DROP CONSTRAINT jobs_kind_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('upload', 'delete', 'describe', 'locate', 'unlocate'));
