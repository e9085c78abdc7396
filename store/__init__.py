"""Durable state: queues, ledgers, blobs and documents, for the truck and for the gateway."""
