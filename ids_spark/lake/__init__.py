"""Tables below one root URI on any file system, replaced completely or not at all."""
