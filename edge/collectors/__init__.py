"""Collectors: where a truck's telemetry comes from. The interface is in base.py, one file for each kind of source."""
