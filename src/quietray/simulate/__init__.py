"""Phantoms, noise and whole scans whose truth is known."""
