"""Raw files to typed, labelled, deduplicated flows."""
