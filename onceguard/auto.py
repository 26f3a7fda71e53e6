"""
Install onceguard by configuration alone: ``imports = ("onceguard.auto",)``.

Sets up the app whose configuration imports it. With several apps in one process
call `onceguard.setup` for each instead.
"""

from celery import current_app

from onceguard.install import setup

setup(current_app)
