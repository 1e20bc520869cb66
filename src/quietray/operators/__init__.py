"""Linear operators with exact adjoints: projectors and blurs."""
