"""A Flask service that knows nothing of copies. It writes each run to a log of its own."""

import base64
import json
import os
import time
import uuid

from flask import Flask, request

app = Flask(__name__)


def fails(key, times):
    """Reports whether this run fails: the first ones do, in all processes together."""
    for n in range(times):
        try:
            os.mkdir(f"{os.environ['FAILURES']}/{key.replace('/', ' ')}.{n}")
            return True
        except FileExistsError:
            pass
    return False


@app.post("/work")
def work():
    order = json.loads(base64.b64decode(request.get_json()["message"]["data"]))
    run, delivery = uuid.uuid4().hex, int(request.headers.get("X-Delivery", "0"))

    def note(event):
        line = {"event": event, "key": order["key"], "run": run, "delivery": delivery, "at": time.time_ns()}
        log = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(log, json.dumps(line).encode() + b"\n")
        os.close(log)

    note("begin")
    time.sleep(order.get("seconds", 0))
    if fails(order["key"], order.get("fails", 0)):
        note("failure")
        return "failed", 500
    note("effect")
    time.sleep(order.get("tail", 0))
    return "done"
