"""The revisions of catalogs, in the order of their numbers. What has been released is never changed."""
