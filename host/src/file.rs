//! Files that several processes and hosts share: read, lock, replace.
