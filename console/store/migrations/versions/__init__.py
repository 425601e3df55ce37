"""One file a step; released steps are never edited."""
