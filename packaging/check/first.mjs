// A first program with the Node package: creates a file, writes, reads.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

import { Store, generateMasterKey } from "omni-credentials";

const secret = await generateMasterKey();
const store = await Store.create("credentials.omni", { secret });
store.set("smtp", "relay-password", { kind: "password", principal: "app" });
await store.save();
const again = await Store.open("credentials.omni", { secret });
assert.equal(again.getText("smtp"), "relay-password");
assert.ok(!(await readFile("credentials.omni", "utf8")).includes("relay-password"));
console.log(`omni-credentials works with Node ${process.version}`);
