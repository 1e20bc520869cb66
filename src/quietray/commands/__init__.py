"""The commands: one dataclass each, whose fields are the flags.  Nothing heavy is imported before one runs."""
