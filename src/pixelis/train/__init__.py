"""Training: losses, curriculum, auxiliary heads and the loops that use them."""
