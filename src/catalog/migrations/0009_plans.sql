-- The plan of a short page is kept for all projects. It must suit the one that has no image in a cloud where another has nearly all:
-- so Postgres is told that a project has one in a hundred, however few projects there are, and walks its own index.
ALTER TABLE images ALTER COLUMN owner SET (n_distinct = -0.01);
ANALYZE images;
