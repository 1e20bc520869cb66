"""Simulated phantoms, noise and whole scans with known ground truth."""
