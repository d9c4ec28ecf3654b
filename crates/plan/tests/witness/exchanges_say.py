"""Says when jobs on an exchange's days are due, by Python's own time zones and the calendars of `exchange_calendars`.

Reads {"exchange", "zone", "first", "last", "jobs": [{"name", "hour", "minute", "weekdays", "replicas"}]}; weekdays are
those of ISO, 1 is Monday. Answers {"holidays": [date], "due": [[UTC second, name, replicas]]} in order.
"""

import json
import sys
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import exchange_calendars


def instant(local, zone):
    """The first instant with that local time, or the end of the gap that the clock skips it by."""
    utc = local.replace(tzinfo=zone).astimezone(timezone.utc)
    if utc.astimezone(zone).replace(tzinfo=None) == local:
        return utc
    at = utc - timedelta(hours=3)
    before = at.astimezone(zone).utcoffset()
    while at.astimezone(zone).utcoffset() == before:
        at += timedelta(minutes=1)
    return at


asked = json.load(sys.stdin)
zone, first, last = ZoneInfo(asked["zone"]), date.fromisoformat(asked["first"]), date.fromisoformat(asked["last"])
calendar = exchange_calendars.get_calendar(asked["exchange"], start=first.isoformat(), end=last.isoformat())
sessions = {session.date() for session in calendar.sessions}
days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
holidays = [day for day in days if day.isoweekday() < 6 and day not in sessions]
due = [
    (int(instant(datetime(day.year, day.month, day.day, job["hour"], job["minute"]), zone).timestamp()), at, job)
    for day in days
    if day not in holidays
    for at, job in enumerate(asked["jobs"])
    if day.isoweekday() in job["weekdays"]
]
due.sort(key=lambda one: one[:2])
answer = [[second, job["name"], job["replicas"]] for second, _, job in due]
json.dump({"holidays": [day.isoformat() for day in holidays], "due": answer}, sys.stdout)
