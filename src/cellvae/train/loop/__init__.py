"""The training loop: LightningModule, optimizers, steps."""
