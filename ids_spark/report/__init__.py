"""HTML pages, their templates and pictures."""
