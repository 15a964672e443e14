"""The commands that need no part but the shared package."""
