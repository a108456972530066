// node --import omni-credentials/register app.js: the credentials of a file are in the program's environment.

import { isMainThread } from "node:worker_threads";

import { setVariables } from "./config.js";

// A worker has its parent's environment.
if (isMainThread) await setVariables();

export {};
