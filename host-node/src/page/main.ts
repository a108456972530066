//! The page: one file at a time, one value at a time. What is secret is in the worker, but for the value that is shown.

import type { Failed, Reply, Request, Row } from "./messages.js";

/** The worker's code, which the build puts here. */
declare const WORKER: string;

/** Typing such a thing needs a library that is newer than the compiler's. */
interface Policies {
    createPolicy(
        name: string,
        rules: { createScriptURL(url: string): string },
    ): { createScriptURL(url: string): string };
}

/** The longest credentials file, in bytes: the format's limit. */
const MAX_FILE = 64 << 20;

const main = element("main", HTMLElement);
const form = element("open", HTMLFormElement);
const file = element("file", HTMLInputElement);
const secret = element("secret", HTMLInputElement);
const status = element("status", HTMLElement);
const problem = element("problem", HTMLElement);
const contents = element("contents", HTMLElement);
const title = element("contents-title", HTMLElement);
const rows = element("rows", HTMLTableSectionElement);
const shown = element("shown", HTMLElement);
const shownName = element("shown-name", HTMLElement);
const value = element("value", HTMLElement);
const unreadable = element("unreadable", HTMLUListElement);

let worker: Worker | undefined;

form.addEventListener("submit", (event) => {
    event.preventDefault();
    void alone(open);
});
element("verify", HTMLButtonElement).addEventListener("click", () => void alone(verify));
element("hide", HTMLButtonElement).addEventListener("click", hide);
element("close", HTMLButtonElement).addEventListener("click", () => {
    close();
    say("The file is closed.");
    file.focus();
});
addEventListener("pagehide", close);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer?.files.length) file.files = event.dataTransfer.files;
    secret.focus();
});

/** Does one thing at a time: what is asked for meanwhile is not done. */
async function alone(work: () => Promise<void>): Promise<void> {
    if (main.ariaBusy === "true") return;
    main.ariaBusy = "true";
    try {
        await work();
    } finally {
        main.ariaBusy = "false";
    }
}

async function open(): Promise<void> {
    const chosen = file.files?.[0];
    const typed = secret.value;
    secret.value = "";
    close();
    if (chosen === undefined) return fail({ failure: "No file is chosen" });
    if (chosen.size > MAX_FILE) return fail({ failure: `${chosen.name}: is longer than a credentials file can be` });
    say(`Opening ${chosen.name}…`);
    let bytes: Uint8Array;
    try {
        bytes = new Uint8Array(await chosen.arrayBuffer());
    } catch {
        return fail({ failure: `${chosen.name}: cannot be read`, hint: "Choose the file again." });
    }
    worker = start();
    const reply = await ask({ what: "open", file: bytes, name: chosen.name, secret: typed });
    if (!("rows" in reply)) {
        close();
        return fail(reply);
    }
    rows.replaceChildren(...reply.rows.map(rowOf));
    contents.hidden = false;
    title.focus();
    const count = reply.rows.length === 1 ? "1 credential" : `${reply.rows.length} credentials`;
    say(`${chosen.name}: the seal is right. ${count}, generation ${reply.generation}.`);
}

async function show(row: Row, at: number): Promise<void> {
    hide();
    const reply = await ask({ what: "show", at });
    if ("failure" in reply) return fail(reply);
    shownName.textContent = "base64" in reply ? `${row.name}, which is not text, in base64` : row.name;
    value.textContent = "text" in reply ? reply.text : "base64" in reply ? reply.base64 : "";
    shown.hidden = false;
    shown.focus();
}

async function verify(): Promise<void> {
    hide();
    const reply = await ask({ what: "verify" });
    if (!("unreadable" in reply)) return fail(reply);
    if (reply.unreadable.length === 0) return say(`The seal is right and all ${reply.values} values open.`);
    unreadable.replaceChildren(...reply.unreadable.map((message) => withText("li", message)));
    fail({ failure: `${reply.unreadable.length} of ${reply.values} values do not open:` });
}

function rowOf(row: Row, at: number): HTMLTableRowElement {
    const made = document.createElement("tr");
    const name = withText("th", row.name);
    name.scope = "row";
    const expires = withText(
        "td",
        row.expires === undefined ? "never" : row.expires.toISOString().replace(/\.000Z$/, "Z"),
    );
    if (row.expires !== undefined && row.expires.getTime() <= Date.now())
        expires.append(withText("strong", " (expired)"));
    const button = withText("button", "Show");
    button.type = "button";
    button.setAttribute("aria-label", `Show the value of ${row.name} (${row.kind} of ${row.principal})`);
    button.addEventListener("click", () => void alone(() => show(row, at)));
    const last = document.createElement("td");
    last.append(button);
    made.append(name, ...[row.kind, row.principal, row.scope].map((text) => withText("td", text)), expires, last);
    return made;
}

/** Forgets all: the thread with the keys, the list and the value. */
function close(): void {
    worker?.terminate();
    worker = undefined;
    hide();
    contents.hidden = true;
    rows.replaceChildren();
}

function hide(): void {
    shown.hidden = true;
    value.textContent = "";
    shownName.textContent = "";
    problem.textContent = "";
    unreadable.replaceChildren();
}

/** Asks the worker. */
async function ask(request: Request): Promise<Reply> {
    const asked = worker;
    if (asked === undefined) return { failure: "No file is open" };
    return new Promise<Reply>((resolve) => {
        asked.onmessage = ({ data }: MessageEvent<Reply>) => resolve(data);
        asked.onerror = () => resolve({ failure: "The thread of this page failed" });
        asked.postMessage(request);
    });
}

/** The code is a part of this page, and the policy of the page lets nothing else become a worker. */
function start(): Worker {
    const url = URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" }));
    const made = new Worker(policy.createScriptURL(url));
    URL.revokeObjectURL(url);
    return made;
}

const policy = (
    (globalThis as { trustedTypes?: Policies }).trustedTypes ?? { createPolicy: (_, rules) => rules }
).createPolicy("worker", { createScriptURL: (url) => url });

function say(text: string): void {
    problem.textContent = "";
    status.textContent = text;
}

function fail(reply: Reply | Failed): void {
    status.textContent = "";
    if (!("failure" in reply)) return;
    problem.textContent = reply.hint === undefined ? reply.failure : `${reply.failure}. ${reply.hint}`;
}

function withText<K extends keyof HTMLElementTagNameMap>(tag: K, text: string): HTMLElementTagNameMap[K] {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
}

function element<T extends HTMLElement>(id: string, kind: new () => T): T {
    const found = document.getElementById(id);
    if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
    return found;
}
