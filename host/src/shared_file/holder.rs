use std::fmt;
use std::fs;
use std::process;

use rustix::io::Errno;
use rustix::process::Pid;

/// The first line of a lock file: what it is, and the version of its layout.
const HEADER: &str = "omni-credentials lock 1";
/// What stands for something that this system does not tell.
const UNKNOWN: &str = "-";

/// Who holds a lock: a process, told apart from all others, now and after a restart of the machine.
///
/// As text, a line each: the header, `pid`, `start` (of the process, in clock ticks since the machine
/// started), `boot` (id of that start), `namespace` (of process ids: containers have their own),
/// `machine`, `host`. A line whose content the system does not tell holds `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pid: u32,
    start: String,
    boot: String,
    namespace: String,
    machine: String,
    host: String,
}

impl Holder {
    /// This process.
    pub(super) fn current() -> Self {
        let pid = process::id();
        let namespace = fs::read_link("/proc/self/ns/pid").ok();
        Self {
            pid,
            start: start_of(pid).unwrap_or_else(|| UNKNOWN.to_owned()),
            boot: first_word("/proc/sys/kernel/random/boot_id"),
            namespace: namespace
                .and_then(|link| link.to_str().map(str::to_owned))
                .unwrap_or_else(|| UNKNOWN.to_owned()),
            machine: first_word("/etc/machine-id"),
            host: host_name(),
        }
    }

    /// The holder that a lock file names; none for any other file.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let mut field = |name: &str| {
            let value = lines.next()?.strip_prefix(name)?.strip_prefix(' ')?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        let header = field("omni-credentials")?;
        let holder = Self {
            pid: field("pid")?.parse().ok()?,
            start: field("start")?,
            boot: field("boot")?,
            namespace: field("namespace")?,
            machine: field("machine")?,
            host: field("host")?,
        };
        (HEADER.strip_prefix("omni-credentials ") == Some(&header) && lines.next().is_none())
            .then_some(holder)
    }

    /// Whether this holder is certainly gone. `is_local` says that no other machine can have the lock's folder mounted. Of
    /// a process that cannot be seen from here, on another machine or in another container, the answer is no.
    ///
    /// Machines made from one image can share host name and machine id. They differ in `boot`, as this machine
    /// does after a restart, so another `boot` proves nothing where the folder may be shared between machines.
    pub(super) fn is_gone(&self, is_local: bool) -> bool {
        let here = Self::current();
        if self.machine != here.machine || self.host != here.host {
            return false;
        }
        if self.boot == UNKNOWN || here.boot == UNKNOWN || self.boot != here.boot {
            let known = ![&self.machine, &self.boot, &here.boot].iter().any(|it| *it == UNKNOWN);
            if self.boot != here.boot {
                return is_local && known;
            }
            if !is_local {
                return false;
            }
        }
        if self.namespace == UNKNOWN || self.namespace != here.namespace {
            return false;
        }
        // /proc may hide the processes of others, the signal 0 does not.
        !exists(self.pid)
            || start_of(self.pid).is_some_and(|start| self.start != UNKNOWN && start != self.start)
    }

    /// Whether it is this very process, and not a parent it was forked from.
    pub(super) fn is_this_process(&self) -> bool {
        self.pid == process::id()
    }

    /// For a message.
    pub(super) fn name(&self) -> String {
        let here = Self::current();
        let elsewhere = self.host == here.host && self.namespace != here.namespace;
        let container = if elsewhere { ", in another container" } else { "" };
        format!("process {} on host {}{container}", self.pid, self.host)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, start, boot, namespace, machine, host } = self;
        writeln!(f, "{HEADER}\npid {pid}\nstart {start}\nboot {boot}")?;
        writeln!(f, "namespace {namespace}\nmachine {machine}\nhost {host}")
    }
}

/// Field 22 of /proc/PID/stat. The name in field 2 may hold spaces and parentheses.
fn start_of(pid: u32) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

fn exists(pid: u32) -> bool {
    // Only a positive number is one process.
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
        return false;
    };
    rustix::process::test_kill_process(pid) != Err(Errno::SRCH)
}

fn host_name() -> String {
    word(Some(&rustix::system::uname().nodename().to_string_lossy()))
}

fn first_word(path: &str) -> String {
    word(fs::read_to_string(path).ok().as_deref())
}

fn word(text: Option<&str>) -> String {
    text.and_then(|text| text.split_whitespace().next()).unwrap_or(UNKNOWN).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn text_round_trip() {
        let here = Holder::current();
        assert_eq!(Holder::parse(&here.to_string()), Some(here.clone()));
        let text = here.to_string();
        for cut in 0..text.len() {
            assert_eq!(text.get(..cut).and_then(Holder::parse), None, "{cut}");
        }
        assert_eq!(Holder::parse(&format!("{text}x\n")), None);
        assert_eq!(Holder::parse(&text.replace("lock 1", "lock 2")), None);
    }

    #[test]
    fn tells_the_living_from_the_dead() {
        let here = Holder::current();
        assert!(!here.is_gone(true));
        let mut child = process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(Holder { pid, ..here.clone() }.is_gone(true));
        assert!(Holder { start: "1".into(), ..here.clone() }.is_gone(true), "the pid was used again");
        assert!(!Holder { start: UNKNOWN.into(), ..here.clone() }.is_gone(true));
        assert!(!Holder { pid: 1, start: UNKNOWN.into(), ..here.clone() }.is_gone(true));
        assert!(!Holder { pid, namespace: "pid:[1]".into(), ..here.clone() }.is_gone(true));
        assert!(!Holder { pid, namespace: UNKNOWN.into(), ..here.clone() }.is_gone(true));
        assert!(!Holder { pid, host: "elsewhere".into(), ..here.clone() }.is_gone(true));
        assert!(!Holder { pid, machine: "other".into(), ..here.clone() }.is_gone(true));
        let machine = here.machine.clone();
        let earlier = Holder { boot: "earlier".into(), ..here.clone() };
        assert_eq!(earlier.is_gone(true), machine != UNKNOWN);
        assert!(!earlier.is_gone(false), "perhaps a machine made from the same image");
        assert!(Holder { pid, ..here.clone() }.is_gone(false));
        assert!(!Holder { boot: UNKNOWN.into(), pid, ..here }.is_gone(false));
    }
}
