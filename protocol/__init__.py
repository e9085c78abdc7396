"""The wire and its rules, pure: bytes, values and `now` in, values out."""
