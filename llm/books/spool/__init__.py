"""What has happened and is not in the database yet: kept on disk, and replayed."""
