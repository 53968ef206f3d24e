"""Inference: a trained network predicts label maps from NIfTI images, on the grid of each image."""
