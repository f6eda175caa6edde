"""CICIoMT2024 as data: classes, feature schemas, the contract of every table."""
