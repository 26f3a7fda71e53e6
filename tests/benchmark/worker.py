"""The app that the benchmark's worker loads."""

from tests.benchmark.__main__ import make_app

app, _, _ = make_app()
