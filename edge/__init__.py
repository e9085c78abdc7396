"""The daemon on the truck: collects, queues, sends, receives, installs and serves the classroom."""
