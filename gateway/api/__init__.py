"""The gateway's HTTP API: what operators, publishers and the console talk to. It never speaks to a truck."""
