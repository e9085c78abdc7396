"""The impact report for sponsors: what classrooms were used for, what they had, and what that cost."""
