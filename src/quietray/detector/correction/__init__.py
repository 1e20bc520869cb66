"""From counts to line integrals: flats, darks, bad pixels, beam, zingers, rings, rotation axis."""
