"""Self-supervised methods, each a rule that makes two independent views of one measurement."""
