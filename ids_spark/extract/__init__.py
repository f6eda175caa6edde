"""Packet captures to flow logs: windows of packets with the features of the second release."""
