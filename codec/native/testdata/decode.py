# Decodes golden messages with msgpack and compares them with their elements. In
# elements an object stands for what JSON has no word for: {"int": "…"} for an
# integer beyond 2^53, {"bin": "…"} for bytes in hex.
import json
import sys

import msgpack


def same(got, want):
    if isinstance(got, bytes):
        return want == {"bin": got.hex()}
    if isinstance(got, int) and not isinstance(got, bool) and isinstance(want, dict):
        return want == {"int": str(got)}
    if isinstance(got, list):
        return isinstance(want, list) and len(got) == len(want) and all(map(same, got, want))
    if isinstance(got, dict):
        return isinstance(want, dict) and got.keys() == want.keys() and all(same(v, want[k]) for k, v in got.items())
    return type(got) is type(want) and got == want


count = wrong = 0
for path in sys.argv[1:]:
    for messages in json.load(open(path, encoding="utf-8")).values():
        for m in messages:
            count += 1
            got = msgpack.unpackb(bytes.fromhex(m["msgpack"]))
            if not same(got, m["elements"]):
                wrong += 1
                print(m["name"], "decoded to", got, "want", m["elements"])
print(count, "messages,", wrong, "wrong")
sys.exit(wrong > 0 or count == 0)
