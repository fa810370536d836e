"""Records of a run: what every metric means, and the append-only files that hold them."""
