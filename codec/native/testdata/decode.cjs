// Decodes golden messages with @msgpack/msgpack and compares them with their
// elements. In elements an object stands for what JSON has no word for: {"int":
// "…"} for an integer beyond 2^53, {"bin": "…"} for bytes in hex. Frames have
// neither, so they are decoded as everybody does; records have nanoseconds,
// which JavaScript reads exactly only with useBigInt64.
const { readFileSync } = require("node:fs");
const { decode } = require("@msgpack/msgpack");

function same(got, want) {
  if (got instanceof Uint8Array) return want?.bin === Buffer.from(got).toString("hex");
  if (typeof got === "bigint") return typeof want === "number" ? got === BigInt(want) : want?.int === String(got);
  if (Array.isArray(got)) return Array.isArray(want) && got.length === want.length && got.every((x, i) => same(x, want[i]));
  if (got !== null && typeof got === "object") {
    const keys = Object.keys(got);
    return want !== null && typeof want === "object" && keys.length === Object.keys(want).length && keys.every((k) => same(got[k], want[k]));
  }
  return got === want;
}

let count = 0;
let wrong = 0;
for (const path of process.argv.slice(2)) {
  for (const [list, messages] of Object.entries(JSON.parse(readFileSync(path, "utf8")))) {
    for (const m of messages) {
      count++;
      const got = decode(Buffer.from(m.msgpack, "hex"), { useBigInt64: list === "records" });
      if (!same(got, m.elements)) {
        wrong++;
        console.log(m.name, "decoded to", got, "want", JSON.stringify(m.elements));
      }
    }
  }
}
console.log(count, "messages,", wrong, "wrong");
process.exitCode = wrong > 0 || count === 0 ? 1 : 0;
