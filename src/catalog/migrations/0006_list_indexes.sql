-- Whatever a list sorts by, a page is a walk along an index: within one project, and over all for administrators.
-- Each begins with what a filter on the same column compares, so that a filter finds its images in the default order.
CREATE INDEX images_by_owner_status ON images (owner, status, created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_owner_container_format ON images (owner, coalesce(container_format, ''), created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_owner_disk_format ON images (owner, coalesce(disk_format, ''), created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_owner_size ON images (owner, coalesce(size_bytes, 0), created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_owner_updated ON images (owner, updated_at, created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_status ON images (status, created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_container_format ON images (coalesce(container_format, ''), created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_disk_format ON images (coalesce(disk_format, ''), created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_size ON images (coalesce(size_bytes, 0), created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_updated ON images (updated_at, created_at, id) WHERE status <> 'deleted';

-- Filters on what few images have.
CREATE INDEX images_hidden ON images (created_at, id) WHERE hidden AND status <> 'deleted';
CREATE INDEX images_protected ON images (created_at, id) WHERE protected AND status <> 'deleted';
CREATE INDEX images_by_min_disk ON images (min_disk_gib, created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_min_ram ON images (min_ram_mib, created_at, id) WHERE status <> 'deleted';
CREATE INDEX images_by_virtual_size ON images (virtual_size_bytes) WHERE status <> 'deleted';
CREATE INDEX images_by_checksum ON images (checksum) WHERE status <> 'deleted';
CREATE INDEX images_by_os_hash_value ON images (os_hash_value) WHERE status <> 'deleted';
