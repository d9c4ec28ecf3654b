"""Reads one cron expression on a line, and says what croniter makes of it: three times, or `-`."""

import sys
from datetime import datetime, timezone

from croniter import croniter

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def told(text):
    try:
        times = croniter(text, BEGIN, second_at_beginning=True, max_years_between_matches=9)
        return ",".join(str(int(times.get_next(float))) for _ in range(3))
    except Exception:
        return "-"


for line in sys.stdin:
    print(told(line.rstrip("\n")))
