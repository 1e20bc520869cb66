"""The training loop, and the data it draws from."""
