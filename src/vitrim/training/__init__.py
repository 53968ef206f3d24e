"""Training: loop, resuming, several devices, distillation, loggers."""
