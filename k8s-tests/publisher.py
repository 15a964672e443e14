"""Publishes wafer maps over MQTT as a camera does. Runs in a pod of the bridge's image: `python -c` with this text.

Each image is sent until it is acknowledged, over as many connections as that takes. At the end, or when the file
/tmp/stop is there, the imgids that were acknowledged are printed.
"""

import json
import os
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

fab, camera = os.environ["FAB"], os.environ["CAMERA"]
images = json.loads(os.environ["IMAGES"])
rate, count = float(os.environ["RATE"]), int(os.environ["COUNT"])
patience = float(os.environ["PATIENCE"])

client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"{fab}_{camera}", clean_session=False)
client.username_pw_set(f"{fab}.{camera}", os.environ["PASSWORD"])
client.max_inflight_messages_set(20)
client.reconnect_delay_set(1, 2)
client.connect_async(os.environ["HOST"], 1883, keepalive=5)
client.loop_start()
sent: dict[int, str] = {}
acknowledged: set[int] = set()
# While there is no connection, paho holds messages back and sends them later, though their `rc` says otherwise.
client.on_publish = lambda _client, _data, number, *_: acknowledged.add(number)
begin = time.monotonic()
print("publishing", flush=True)
while len(sent) < count and not Path("/tmp/stop").exists():
    number = len(sent)
    imgid = f"w{number:06}"
    body = {
        "imgid": imgid,
        "timestamp": int(time.time() * 1000),
        "fab": fab,
        "camera": camera,
        "bytes": images[number % len(images)],
    }
    info = client.publish(f"fabwafer/{fab}/{camera}/img/{imgid}", json.dumps(body), qos=1)
    sent[info.mid] = imgid
    time.sleep(max(0.0, begin + (number + 1) / rate - time.monotonic()))
deadline = time.monotonic() + patience
while acknowledged < set(sent) and time.monotonic() < deadline:
    time.sleep(0.1)
print(json.dumps({"sent": len(sent), "acknowledged": [sent[mid] for mid in sorted(acknowledged)]}), flush=True)
client.disconnect()
client.loop_stop()
