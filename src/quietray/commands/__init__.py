"""The commands: one dataclass each, whose fields are the flags.  Large libraries are imported only when one runs."""
