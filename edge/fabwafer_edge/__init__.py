"""The Raspberry Pi side: publishes wafer images as a camera does."""
