"""The least that django-celery-beat needs of a Django project."""

import os

SECRET_KEY = "no secret"  # noqa: S105  a test's
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS = ["django_celery_beat"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["HARNESS_DJANGO_DATABASE"],
        "OPTIONS": {"timeout": 10},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
