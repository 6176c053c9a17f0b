// Decodes the golden messages with @msgpack/msgpack and compares them with
// their elements.
const { readFileSync } = require("node:fs");
const { isDeepStrictEqual } = require("node:util");
const { decode } = require("@msgpack/msgpack");

const golden = JSON.parse(readFileSync(process.argv[2], "utf8"));
const messages = [...golden.frames, ...golden.commands];
let wrong = 0;
for (const m of messages) {
  const got = decode(Buffer.from(m.msgpack, "hex"));
  if (!isDeepStrictEqual(got, m.elements)) {
    wrong++;
    console.log(m.name, "decoded to", JSON.stringify(got), "want", JSON.stringify(m.elements));
  }
}
console.log(messages.length, "messages,", wrong, "wrong");
process.exitCode = wrong > 0 || messages.length === 0 ? 1 : 0;
