"""Training: the loop, how it resumes, several devices, distillation, loggers."""
