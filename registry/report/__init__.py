"""Everything that is known of a release on one page, for people and for the file drawer."""
