/**
 * Application credentials kept encrypted in a file, in Node.
 *
 * @packageDocumentation
 */

export * from "./core.js";
export { config, type ConfigOptions, type ConfigResult } from "./node/config.js";
export { loadModule } from "./node/modules.js";
export { DEFAULT_VARIABLE, secretFromEnvironment, secretFromFile } from "./node/secret.js";
export type { Signal } from "./node/signal.js";
export { type FileUrl, type ReloadOptions, type SaveOptions, Store, type StoreOptions } from "./node/store.js";
