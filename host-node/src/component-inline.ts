/** The component that this package carries, where there are no files: a bundler makes a part of its own of it. */
export default async function component(): Promise<Uint8Array> {
    const { base64 } = await import("./builtin/inline.js");
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
