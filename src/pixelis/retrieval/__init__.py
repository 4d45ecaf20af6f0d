"""Trajectory memory: keys, index, crash-safe store, blocklist of evaluation media, audit. Source: paper §3.2.3, supplement §3 and §11."""
