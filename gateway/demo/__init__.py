"""The demo: a small fleet on one machine, its satellite and 4G links emulated in user space."""
