"""Rewards of phase 2: pure functions of recorded facts. Group statistics are computed after grouping, never per sample."""
