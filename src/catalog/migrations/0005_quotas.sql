-- What projects use is added up from the rows themselves, along indexes that hold no other rows and all that is asked
-- for: there is no counter that could go wrong.

-- Copies of an image's bytes: its rows in image_locations. A trigger keeps the number, whoever adds or removes one.
ALTER TABLE images ADD COLUMN copies integer NOT NULL DEFAULT 0 CHECK (copies >= 0);
UPDATE images i SET copies = l.copies
FROM (SELECT image_id, count(*) AS copies FROM image_locations GROUP BY image_id) l WHERE l.image_id = i.id;

CREATE FUNCTION count_copies() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE images SET copies = copies + 1 WHERE id = NEW.image_id;
    ELSE
        UPDATE images SET copies = copies - 1 WHERE id = OLD.image_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER image_locations_count AFTER INSERT OR DELETE ON image_locations FOR EACH ROW EXECUTE FUNCTION count_copies();

CREATE INDEX images_stored ON images (owner) INCLUDE (size_bytes, copies) WHERE copies > 0 AND status <> 'deleted';
CREATE INDEX images_arriving ON images (owner) INCLUDE (size_bytes, status) WHERE status IN ('saving', 'uploading', 'importing');

-- What a job uses of its project's room: bytes that have been reserved for an upload, or that a deletion may still
-- bring back. It ends with the job's state, however that comes about.
ALTER TABLE jobs ADD COLUMN charged_to text, ADD COLUMN charged_bytes bigint NOT NULL DEFAULT 0 CHECK (charged_bytes >= 0);
CREATE INDEX jobs_charged ON jobs (charged_to) INCLUDE (charged_bytes, state)
    WHERE charged_to IS NOT NULL AND state IN ('writing', 'committing', 'retiring');
