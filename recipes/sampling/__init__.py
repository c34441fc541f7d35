"""Drawing samples, and pictures of them."""
