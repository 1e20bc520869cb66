"""Networks for two-dimensional images, each a plain ``torch.nn.Module``."""
