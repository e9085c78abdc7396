"""Hypothesis for every test of the protocol: no deadline an example, since a busy machine is not a failure."""

from hypothesis import settings

settings.register_profile("protocol", deadline=None)
settings.load_profile("protocol")
