"""How far a result can be trusted: evidence, halves, uncertainty, references."""
