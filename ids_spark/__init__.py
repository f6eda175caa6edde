"""Distributed batch intrusion detection for the Internet of Medical Things."""

__version__ = "0.2.0"
