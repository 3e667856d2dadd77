"""A double of the production Phase 4 service. For each processor that a table sets off it takes a
lock of its own. If that lock is held, it skips the processor, and answers 200 all the same."""

import base64
import json
import os
import time

from flask import Flask, request

app = Flask(__name__)

# Two tables set off one processor.
PROCESSORS = {
    "team_offense_game_summary": ["PlayerShotZoneAnalysisProcessor"],
    "team_defense_game_summary": ["PlayerShotZoneAnalysisProcessor"],
}


def take(lock):
    """Takes a lock that lasts for LOCK_SECONDS, whatever becomes of its process."""
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            return True
        except FileExistsError:
            try:
                if time.time() - os.stat(lock).st_mtime < float(os.environ["LOCK_SECONDS"]):
                    return False
                os.remove(lock)
            except FileNotFoundError:
                pass


def note(event, trigger):
    log = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, f"{event} {trigger['source_table']}\n".encode())
    os.close(log)


@app.post("/process")
def process():
    trigger = json.loads(base64.b64decode(request.get_json()["message"]["data"]))
    processors = PROCESSORS.get(trigger["source_table"], [])
    done = 0
    for processor in processors:
        lock = f"{os.environ['LOCKS']}/{processor}_{trigger['game_date']}"
        if not take(lock):
            note("skipped", trigger)
            continue
        note("begin", trigger)
        time.sleep(float(os.environ["RUN_SECONDS"]))
        note("effect", trigger)
        os.remove(lock)
        done += 1
    status = "completed" if done else "skipped" if processors else "no_processors"
    return {"status": status}, 200
