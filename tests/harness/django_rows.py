"""
Work on the database of django-celery-beat with Django's own means.

    python -m tests.harness.django_rows migrate
    python -m tests.harness.django_rows add ROW

ROW is JSON: columns of PeriodicTask, and `interval` with those of IntervalSchedule or
`clocked` with those of ClockedSchedule.
"""

import json
import sys

import django
from django.core.management import call_command


def add(row: str) -> None:
    """Add an entry as Django's admin does, which tells running beats."""
    from django_celery_beat import models  # noqa: PLC0415

    columns = json.loads(row)
    kinds = {"interval": models.IntervalSchedule, "clocked": models.ClockedSchedule}
    for kind in kinds.keys() & columns.keys():
        columns[kind], _ = kinds[kind].objects.get_or_create(**columns[kind])
    models.PeriodicTask.objects.create(**columns)


def main(word: str, *rest: str) -> None:
    """Do what the first word says."""
    django.setup()
    if word == "migrate":
        call_command("migrate", verbosity=0)
    else:
        add(*rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
