"""Evaluation of a network: predicted label maps, accuracy per case, time and memory."""
