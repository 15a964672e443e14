"""What all long-running processes share: run until stopped, backoff, files, settings, health and metrics, logs."""
