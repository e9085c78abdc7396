"""The `digitruck` command: an HTTP client for operators and publishers whose keys stay on their own machine."""
