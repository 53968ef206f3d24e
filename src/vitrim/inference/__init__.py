"""A trained network on other people's images: NIfTI in, label maps on the same grid out."""
