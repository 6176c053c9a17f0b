# Decodes the golden messages with msgpack and compares them with their elements.
import json
import sys

import msgpack

golden = json.load(open(sys.argv[1], encoding="utf-8"))
messages = golden["frames"] + golden["commands"]
wrong = 0
for m in messages:
    got = msgpack.unpackb(bytes.fromhex(m["msgpack"]))
    if got != m["elements"]:
        wrong += 1
        print(m["name"], "decoded to", got, "want", m["elements"])
print(len(messages), "messages,", wrong, "wrong")
sys.exit(wrong > 0 or not messages)
