import time

from celery import Celery

from onceguard import QueueOnce

app = Celery("minimal")
app.config_from_object("celeryconfig")


@app.task(base=QueueOnce, once={"keys": ["user_id"], "on_conflict": "skip"})
def sync(user_id: int, full: bool = False) -> str:
    time.sleep(5 if full else 2)
    return f"user {user_id} is in sync"
