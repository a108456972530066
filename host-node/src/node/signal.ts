//! Signals that end a call early.

/** An `AbortSignal`, as far as it is used here: not every compiler's library declares it. */
export interface Signal {
    readonly aborted: boolean;
    throwIfAborted(): void;
    addEventListener(type: "abort", listener: () => void, options: { once: boolean }): void;
}

/** What is called when a signal is aborted. */
const waiting = new WeakMap<Signal, Set<() => void>>();

/**
 * Calls `work` when a signal is aborted, unless the function that this returns was called before. A signal gets one
 * listener, however many calls it may end: Node warns of more than ten.
 */
export function onAbort(signal: Signal | undefined, work: () => void): () => void {
    if (signal === undefined) return () => undefined;
    let all = waiting.get(signal);
    if (all === undefined) {
        const made = new Set<() => void>();
        signal.addEventListener("abort", () => made.forEach((call) => call()), { once: true });
        waiting.set(signal, made);
        all = made;
    }
    const calls = all.add(work);
    return () => void calls.delete(work);
}
