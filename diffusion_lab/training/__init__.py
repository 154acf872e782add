"""Training: the LightningModule, weight averaging, checkpoints, callbacks and loggers."""
