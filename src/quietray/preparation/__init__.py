"""Preparation of raw scans for reconstruction."""
