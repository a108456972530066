// Only checked, never run: every entry of the package has types.
import { Store } from "omni-credentials";
import * as core from "omni-credentials/core";
import "omni-credentials/register";

export async function stripe(): Promise<string> {
    const store: Store = await Store.open("credentials.omni");
    const value: Uint8Array = store.get("stripe", { kind: "api_key" });
    // @ts-expect-error A name is a string.
    store.get(1);
    return value.length > 0 ? store.getText("stripe") : "";
}

export const contents: object = core;
