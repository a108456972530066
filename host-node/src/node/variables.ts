//! Which variable of the environment a credential becomes: the rule of the command's `exec`, whose vectors are in
//! `conformance/variables.json`.

import { InvalidInputError } from "../errors.js";
import { type Credential, shown } from "../identity.js";

/** Variables that decide which code runs: not for a file to set. */
const RESERVED = new Set([
    ...["PATH", "SHELL", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "PROMPT_COMMAND", "PS4", "GCONV_PATH"],
    ...["NODE_OPTIONS", "NODE_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP"],
    ...["PERL5LIB", "PERL5OPT", "RUBYLIB", "RUBYOPT"],
    ...["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"],
]);
const RESERVED_PREFIXES = ["LD_", "DYLD_", "BASH_FUNC_"];

/** The variable of each credential. Throws an {@link InvalidInputError} if one cannot have one. */
export function assign(credentials: readonly Credential[]): Map<string, Credential> {
    const variables = new Map<string, Credential>();
    for (const credential of credentials) {
        const variable = variableOf(credential.name);
        if (variable === undefined) throw refused(`${shown(credential)} cannot be the name of a variable`);
        if (RESERVED.has(variable) || RESERVED_PREFIXES.some((prefix) => variable.startsWith(prefix))) {
            throw refused(`${shown(credential)} would be ${variable}, which decides which code runs`);
        }
        const other = variables.get(variable);
        if (other !== undefined) throw refused(`${shown(other)} and ${shown(credential)} would both be ${variable}`);
        variables.set(variable, credential);
    }
    return variables;
}

/** The error for what no variable can be or hold. */
export function refused(message: string): InvalidInputError {
    return new InvalidInputError("invalid-variable", message, { hint: "choose others with only, kind or principal" });
}

/** The variable of a name; none for a name without letters and digits. */
function variableOf(name: string): string | undefined {
    const variable = name.replace(/^(?=[0-9])/, "_").replace(/[^A-Za-z0-9]/gu, "_");
    return /[A-Za-z0-9]/.test(variable) ? variable.toUpperCase() : undefined;
}
