"""Counts to line integrals: flat and dark, bad pixels, beam, zingers, rings, the rotation axis."""
