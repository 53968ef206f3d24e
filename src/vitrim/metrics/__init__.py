"""Metrics of segmentations (Dice, HD95, surface Dice), and statistics: confidence intervals and verdicts."""
