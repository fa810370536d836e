"""New training rows made of those there are, each with the row it comes from, and proof of use."""
