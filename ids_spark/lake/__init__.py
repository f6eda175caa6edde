"""Tables below one root URI, on any file system, replaced whole or not at all."""
