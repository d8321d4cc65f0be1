-- Whether an event tells of something done or of something that failed.
ALTER TABLE events ADD COLUMN priority text NOT NULL DEFAULT 'INFO' CHECK (priority IN ('INFO', 'ERROR'));
