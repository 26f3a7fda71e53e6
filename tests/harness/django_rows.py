"""
Work on the database of django-celery-beat with Django's own means.

    python -m tests.harness.django_rows migrate
    python -m tests.harness.django_rows add ROW

ROW is JSON: columns of PeriodicTask, and `interval` with those of IntervalSchedule.
"""

import json
import sys

import django
from django.core.management import call_command


def add(row: str) -> None:
    """Add an entry as Django's admin does, which tells running beats."""
    from django_celery_beat.models import IntervalSchedule, PeriodicTask  # noqa: PLC0415

    columns = json.loads(row)
    interval, _ = IntervalSchedule.objects.get_or_create(**columns.pop("interval"))
    PeriodicTask.objects.create(interval=interval, **columns)


def main(word: str, *rest: str) -> None:
    """Do what the first word says."""
    django.setup()
    if word == "migrate":
        call_command("migrate", verbosity=0)
    else:
        add(*rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
