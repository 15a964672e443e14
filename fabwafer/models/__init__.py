"""Models: their card, the store of their versions, the classifier, the archive for TorchServe, and the rollout."""
