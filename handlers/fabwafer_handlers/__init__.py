"""What runs inside the model server: thin shims over fabwafer.models.classifier."""
