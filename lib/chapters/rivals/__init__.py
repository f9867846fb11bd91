"""The chapter on rivals: other papers' schedules and losses on one leaderboard."""
