//! Clones of one credentials file under random histories, against a causal model: who knew of which version, and who
//! deleted or replaced it.
//!
//! `OMNI_CREDENTIALS_SIMULATION` is the number of steps (5,000 without it), and `OMNI_CREDENTIALS_SIMULATION_SEED` the seed
//! to start from. A failure names the seed of its episode.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]
#![allow(clippy::panic, reason = "tests may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::rc::Rc;

use omni_credentials_core::{
    Document, Entry, Keyring, Preference, Reason, Side, Wrapping, XChaCha20Poly1305, reconcile,
};
use support::{ALL, CHEAP, Fixed, identity, keyring};

type Doc = Document<XChaCha20Poly1305>;
type Keys = Keyring<XChaCha20Poly1305>;
/// A version of a credential: its nonce.
type Version = Vec<u8>;

const EPISODE: u64 = 200;
const NAMES: u64 = 12;
const BRANCHES: u64 = 5;

#[test]
fn histories_lose_nothing_and_bring_nothing_back() {
    let number =
        |name, otherwise| env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"));
    let steps: u64 = number("OMNI_CREDENTIALS_SIMULATION", 5_000);
    let first: u64 = number("OMNI_CREDENTIALS_SIMULATION_SEED", 1);
    let mut seen = Seen::default();
    for seed in first..first + steps.div_ceil(EPISODE) {
        let reminder = Reminder(seed);
        let mut world = World::new(seed);
        for _ in 0..EPISODE {
            world.step();
        }
        seen.add(&world.seen);
        drop(reminder);
    }
    // The histories are of the sort that they are meant to be.
    if steps >= 5_000 {
        assert!(seen.merges > 500 && seen.crossed > 20 && seen.picks > 50, "{seen:?}");
        assert!(seen.conflicts > 100 && seen.forgotten > 0 && seen.rewraps > 50, "{seen:?}");
    }
}

/// Names the seed where a test fails.
struct Reminder(u64);

impl Drop for Reminder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("OMNI_CREDENTIALS_SIMULATION=1 OMNI_CREDENTIALS_SIMULATION_SEED={}", self.0);
        }
    }
}

/// What happened how often.
#[derive(Debug, Default)]
struct Seen {
    merges: u32,
    crossed: u32,
    picks: u32,
    conflicts: u32,
    forgotten: u32,
    rewraps: u32,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.merges += other.merges;
        self.crossed += other.crossed;
        self.picks += other.picks;
        self.conflicts += other.conflicts;
        self.forgotten += other.forgotten;
        self.rewraps += other.rewraps;
    }
}

/// What a version of the file says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fact {
    Lacking,
    Deleted,
    Live(Version, u8),
}

impl Fact {
    fn version(&self) -> Option<&Version> {
        if let Self::Live(version, _) = self { Some(version) } else { None }
    }

    /// The same for who reads it.
    fn reads_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Live(_, a), Self::Live(_, b)) => a == b,
            (Self::Live(..), _) | (_, Self::Live(..)) => false,
            _ => true,
        }
    }
}

/// A version of the file, with what its history knows.
#[derive(Clone)]
struct State {
    document: Doc,
    keys: Keys,
    /// Counts the master secrets.
    wrapping: u64,
    /// Versions that the history has seen, and those of them that it replaced or deleted.
    known: BTreeSet<Version>,
    ended: BTreeSet<Version>,
    /// Versions that had ended and that a conflict, solved by hand, made count again.
    revived: BTreeSet<Version>,
    /// Names that came without their history.
    picked: BTreeSet<String>,
}

struct Commit {
    state: State,
    parents: Vec<usize>,
    ancestors: BTreeSet<usize>,
}

struct World {
    random: u64,
    drawn: u64,
    seed: u64,
    /// The values of all versions.
    values: BTreeMap<Version, u8>,
    commits: Vec<Rc<Commit>>,
    /// Each with the commit that it is at.
    branches: Vec<(usize, State)>,
    wrappings: u64,
    /// Whether commits are picked, and whether deletions are forgotten.
    picks: bool,
    forgets: bool,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let (keys, _) = keyring(seed);
        let document = Doc::create(&keys.to_bytes()).unwrap();
        let none = BTreeSet::new();
        let (known, ended, revived, picked) = (none.clone(), none.clone(), none, BTreeSet::new());
        let state = State { document, keys, wrapping: 0, known, ended, revived, picked };
        let mut world = Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            drawn: 0,
            seed,
            values: BTreeMap::new(),
            commits: Vec::new(),
            branches: Vec::new(),
            wrappings: 0,
            picks: seed.is_multiple_of(2),
            forgets: seed.is_multiple_of(3),
            seen: Seen::default(),
        };
        world.branches.push((0, state));
        for name in 0..NAMES / 2 {
            world.set(0, &format!("name-{name}"));
        }
        world.commit(0, &[]);
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    fn entropy(&mut self) -> Fixed {
        self.drawn += 1;
        Fixed::new(self.seed << 32 | self.drawn)
    }

    fn step(&mut self) {
        let branch = usize::try_from(self.below(self.branches.len() as u64)).unwrap();
        let name = format!("name-{}", self.below(NAMES));
        match self.below(100) {
            0..30 => self.set(branch, &name),
            30..45 => self.remove(branch, &name),
            45..50 => self.rotate(branch),
            50..53 => self.rewrap(branch),
            53..55 if self.forgets => self.branches[branch].1.document.forget_deletions(),
            53..65 => self.fork(branch),
            65..70 if self.picks => self.pick(branch),
            65..75 => self.commit_all(branch),
            _ => self.merge(branch),
        }
    }

    /// A new value; one in four is a value that others may set as well.
    fn set(&mut self, branch: usize, name: &str) {
        let common = self.below(4) == 0;
        let value = u8::try_from(self.below(if common { 2 } else { 250 })).unwrap();
        let mut entropy = self.entropy();
        let before = self.fact(&self.branches[branch].1, name);
        let state = &mut self.branches[branch].1;
        let expires = value.is_multiple_of(2).then_some(value.into());
        let sealed = state.keys.seal(&identity(name, ALL), expires, &[value], &mut entropy).unwrap();
        state
            .document
            .put([Entry { identity: identity(name, ALL), expires, sealed: Some(&sealed) }])
            .unwrap();
        state.ended.extend(before.version().cloned());
        state.known.insert(sealed[10..34].to_vec());
        self.values.insert(sealed[10..34].to_vec(), value);
    }

    fn remove(&mut self, branch: usize, name: &str) {
        let before = self.fact(&self.branches[branch].1, name);
        let Some(version) = before.version() else { return };
        let state = &mut self.branches[branch].1;
        state.document.put([Entry { identity: identity(name, ALL), expires: None, sealed: None }]).unwrap();
        state.ended.insert(version.clone());
    }

    /// Seals everything again, and drops the older keys one time in two.
    fn rotate(&mut self, branch: usize) {
        let (mut entropy, retires) = (self.entropy(), self.below(2) == 0);
        let state = &mut self.branches[branch].1;
        state.keys.add_key(&mut entropy).unwrap();
        let before = state.document.clone();
        for entry in before.entries() {
            let Some(sealed) = entry.sealed else { continue };
            let again = state.keys.reseal(&entry.identity, entry.expires, sealed).unwrap();
            state.document.put([Entry { sealed: Some(&again), ..entry }]).unwrap();
        }
        if retires {
            state.keys.retire(&state.document).unwrap();
        }
        state.document.set_keyring(&state.keys.to_bytes()).unwrap();
    }

    fn rewrap(&mut self, branch: usize) {
        let mut entropy = self.entropy();
        self.wrappings += 1;
        self.seen.rewraps += 1;
        let state = &mut self.branches[branch].1;
        state.keys = state.keys.rewrap(b"another", Some(CHEAP), &mut entropy).unwrap().0;
        state.wrapping = self.wrappings;
        state.document.set_keyring(&state.keys.to_bytes()).unwrap();
    }

    /// Writes the file, as a child of what the branch is at and of others.
    fn commit(&mut self, branch: usize, others: &[usize]) -> usize {
        let (at, state) = &mut self.branches[branch];
        state.document = Doc::parse(&state.document.write(&state.keys, 0).unwrap()).unwrap();
        state.document.verify(&state.keys).unwrap();
        let parents: Vec<_> =
            if self.commits.is_empty() { vec![] } else { others.iter().copied().chain([*at]).collect() };
        let mut ancestors: BTreeSet<usize> = parents.iter().copied().collect();
        for parent in &parents {
            ancestors.extend(&self.commits[*parent].ancestors);
        }
        *at = self.commits.len();
        self.commits.push(Rc::new(Commit { state: state.clone(), parents, ancestors }));
        *at
    }

    fn commit_all(&mut self, branch: usize) {
        self.commit(branch, &[]);
    }

    fn fork(&mut self, branch: usize) {
        let at = self.commit(branch, &[]);
        let fork = (at, self.branches[branch].1.clone());
        if (self.branches.len() as u64) < BRANCHES {
            self.branches.push(fork);
        } else {
            let replaced = usize::try_from(self.below(BRANCHES)).unwrap();
            self.branches[replaced] = fork;
        }
    }

    fn merge(&mut self, branch: usize) {
        let other = usize::try_from(self.below(self.branches.len() as u64)).unwrap();
        let (ours, theirs) = (self.commit(branch, &[]), self.commit(other, &[]));
        if ours == theirs || branch == other {
            return;
        }
        let bases = self.bases(ours, theirs);
        self.seen.merges += 1;
        // As git does it: several bases are one that it makes up, which no manifest can stand for.
        let base = if let [base] = bases[..] { Some(base) } else { None };
        self.seen.crossed += u32::from(base.is_none());
        self.reconcile(branch, theirs, base, true);
        self.commit(branch, &[theirs]);
    }

    /// The best common ancestors, a commit being one of its own.
    fn bases(&self, ours: usize, theirs: usize) -> Vec<usize> {
        let history = |commit: usize| {
            let mut all = self.commits[commit].ancestors.clone();
            all.insert(commit);
            all
        };
        let common: BTreeSet<_> = history(ours).intersection(&history(theirs)).copied().collect();
        let is_best = |it: &usize| !common.iter().any(|other| self.commits[*other].ancestors.contains(it));
        common.iter().copied().filter(is_best).collect()
    }

    /// Takes over what one commit of another branch changed.
    fn pick(&mut self, branch: usize) {
        let commit = usize::try_from(self.below(self.commits.len() as u64)).unwrap();
        let [parent] = self.commits[commit].parents[..] else { return };
        self.commit(branch, &[]);
        self.seen.picks += 1;
        self.reconcile(branch, commit, Some(parent), false);
        self.commit(branch, &[]);
    }

    fn reconcile(&mut self, branch: usize, theirs: usize, base: Option<usize>, is_merge: bool) {
        let prefer = [Preference::Ours, Preference::Theirs][usize::try_from(self.below(2)).unwrap()];
        let ours = self.branches[branch].1.clone();
        let theirs = Rc::clone(&self.commits[theirs]);
        let theirs = &theirs.state;
        let base = base.map(|base| Rc::clone(&self.commits[base]));
        let base = base.as_ref().map(|base| &base.state);
        let ancestor = base.map_or(Vec::new(), |base| base.document.manifest());
        let side = |state: &'_ State| (state.document.clone(), state.keys.clone());
        let ((our_document, our_keys), (their_document, their_keys)) = (side(&ours), side(theirs));
        let found = reconcile(
            &ancestor,
            &Side { document: &our_document, keyring: &our_keys },
            &Side { document: &their_document, keyring: &their_keys },
            false,
            prefer,
            &mut self.entropy(),
        )
        .unwrap();
        let wrapping = wrapping(&ours, theirs, base, prefer);
        assert_eq!(found.wrapping, wrapping.0);
        let conflicts: BTreeMap<_, _> =
            found.conflicts.iter().map(|(who, reason)| (who.name.clone(), *reason)).collect();
        self.seen.conflicts += u32::try_from(conflicts.len()).unwrap();

        let result = State {
            document: found.document,
            keys: found.keyring,
            wrapping: wrapping.1,
            known: ours.known.clone(),
            ended: ours.ended.clone(),
            revived: ours.revived.clone(),
            picked: ours.picked.clone(),
        };
        for name in (0..NAMES).map(|name| format!("name-{name}")) {
            let facts = [&ours, theirs, &result].map(|state| self.fact(state, &name));
            let before = base.map(|base| self.fact(base, &name).version().cloned());
            let conflict = conflicts.get(&name).copied();
            self.check_values(&name, &facts, before.as_ref(), conflict, [&ours, theirs]);
            if is_merge && !ours.picked.contains(&name) && !theirs.picked.contains(&name) {
                check_causes(&name, &facts, conflict, [&ours, theirs]);
            }
        }

        self.branches[branch].1 = result;
        let names: Vec<_> = (0..NAMES).map(|name| format!("name-{name}")).collect();
        let facts: Vec<_> = names.iter().map(|name| self.fact(&self.branches[branch].1, name)).collect();
        let (now, were): (BTreeSet<_>, Vec<_>) = (
            facts.iter().filter_map(|fact| fact.version().cloned()).collect(),
            names.iter().map(|name| self.fact(&ours, name)).collect(),
        );
        let state = &mut self.branches[branch].1;
        if is_merge {
            state.known.extend(theirs.known.iter().cloned());
            state.ended.extend(theirs.ended.iter().cloned());
            state.picked.extend(theirs.picked.iter().cloned());
            state.revived.extend(theirs.revived.iter().cloned());
            state.revived.extend(now.intersection(&state.ended).cloned());
        } else {
            let differs = names.iter().zip(facts.iter().zip(&were)).filter(|(_, (now, was))| now != was);
            state.picked.extend(differs.map(|(name, _)| name.clone()));
        }
        state.known.extend(now.iter().cloned());
        // What was known and did not stay has ended; what a resolved conflict kept has not.
        state.ended = state.known.difference(&now).cloned().collect();
    }

    /// The plain three-way merge of values is what comes of it, and there are no conflicts beyond its own.
    fn check_values(
        &mut self,
        name: &str,
        [ours, theirs, result]: &[Fact; 3],
        before: Option<&Option<Version>>,
        conflict: Option<Reason>,
        sides: [&State; 2],
    ) {
        if conflict == Some(Reason::DeletionForgotten) {
            self.seen.forgotten += 1;
            let lacks = if *ours == Fact::Lacking { sides[0] } else { sides[1] };
            assert!(lacks.document.deletions_since() > 0, "{name} was never forgotten");
            return;
        }
        let expected = match before {
            Some(before) => three_way(ours, theirs, before.as_ref()),
            None => two_way(ours, theirs),
        };
        match (expected, conflict) {
            (Some(expected), None) => {
                assert!(
                    result.reads_as(expected),
                    "{name}: {ours:?} {theirs:?} {before:?} became {result:?}"
                );
            }
            (None, Some(_)) => {
                assert!(result.reads_as(ours) || result.reads_as(theirs), "{name}: {result:?}");
            }
            (expected, conflict) => {
                panic!("{name}: {ours:?} {theirs:?} {before:?}: {expected:?}, {conflict:?}")
            }
        }
    }

    /// What a state says of a name; what it holds must open to what was sealed as that version.
    fn fact(&self, state: &State, name: &str) -> Fact {
        let found = state.document.entries().find(|entry| entry.identity.name == name.as_bytes());
        match found.map(|entry| (entry.sealed, entry.expires)) {
            None => Fact::Lacking,
            Some((None, _)) => Fact::Deleted,
            Some((Some(sealed), expires)) => {
                let value = state.keys.open(&identity(name, ALL), expires, sealed).unwrap();
                let version = sealed[10..34].to_vec();
                assert_eq!(Some(&value[0]), self.values.get(&version), "{name}");
                Fact::Live(version, value[0])
            }
        }
    }
}

/// The result of a plain three-way merge; none for a conflict. Absence says nothing.
fn three_way<'a>(ours: &'a Fact, theirs: &'a Fact, before: Option<&Version>) -> Option<&'a Fact> {
    if *ours == Fact::Lacking || *theirs == Fact::Lacking || ours.reads_as(theirs) {
        return Some(if *ours == Fact::Lacking { theirs } else { ours });
    }
    if ours.version() == before {
        return Some(theirs);
    }
    (theirs.version() == before).then_some(ours)
}

/// Without an ancestor: what differs is a conflict.
fn two_way<'a>(ours: &'a Fact, theirs: &'a Fact) -> Option<&'a Fact> {
    if *ours == Fact::Lacking || *theirs == Fact::Lacking || ours.reads_as(theirs) {
        return Some(if *ours == Fact::Lacking { theirs } else { ours });
    }
    None
}

/// Nothing that only one side knew is lost, and nothing that one side ended comes back, unless a conflict says so.
fn check_causes(
    name: &str,
    [ours, theirs, result]: &[Fact; 3],
    conflict: Option<Reason>,
    sides: [&State; 2],
) {
    // Equal values are one value, whichever of their versions stays.
    if conflict.is_some() || ours.reads_as(theirs) {
        return;
    }
    for (fact, side, other) in [(ours, sides[0], sides[1]), (theirs, sides[1], sides[0])] {
        let Some(version) = fact.version() else { continue };
        if side.revived.contains(version) {
            continue;
        }
        if other.ended.contains(version) {
            assert_ne!(result.version(), Some(version), "{name} came back: {ours:?} {theirs:?}");
        } else if !other.known.contains(version) {
            assert!(result.reads_as(fact), "{name} is lost: {fact:?} became {result:?}");
        }
    }
}

/// Whose wrapping counts, and which that is.
fn wrapping(ours: &State, theirs: &State, base: Option<&State>, prefer: Preference) -> (Wrapping, u64) {
    let before = base.map(|base| base.wrapping);
    if ours.wrapping == theirs.wrapping {
        (Wrapping::Same, ours.wrapping)
    } else if before == Some(ours.wrapping) {
        (Wrapping::Theirs, theirs.wrapping)
    } else if before == Some(theirs.wrapping) {
        (Wrapping::Ours, ours.wrapping)
    } else {
        (Wrapping::Conflict, if prefer == Preference::Ours { ours.wrapping } else { theirs.wrapping })
    }
}
