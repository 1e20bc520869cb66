"""Assessment of results: evidence, halves of the data, uncertainty, and references."""
