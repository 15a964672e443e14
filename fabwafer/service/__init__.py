"""What every long-running process shares: how it ends, its files, its health and metrics, its logs."""
