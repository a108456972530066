//! What becomes of each credential that is in conflict: as the command line says, or as a person answers.

use std::io::{self, IsTerminal};

use omni_credentials_host::{Conflict, Keyring, OwnedIdentity};
use zeroize::Zeroizing;

use crate::args::Selection;
use crate::buffer::{self, Edited};
use crate::combine::{self, Choice, Merge, Versions};
use crate::context::Context;
use crate::error::Error;
use crate::{editor, expiry, identity, output, prompt, reference, scratch, store, terminal};

/// The credentials that are named on the command line, as references.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) ours: &'a [String],
    pub(crate) theirs: &'a [String],
}

impl Named<'_> {
    /// The first name, if there is one.
    pub(crate) fn first(&self) -> Option<&str> {
        self.ours.iter().chain(self.theirs).map(String::as_str).next()
    }

    /// What is said of these conflicts. A name that says nothing of any is an error.
    pub(crate) fn choices(
        &self,
        merge: &mut Merge<'_>,
        conflicts: &[Conflict],
    ) -> Result<Vec<(OwnedIdentity, Choice)>, Error> {
        let mut choices: Vec<(OwnedIdentity, Choice)> = Vec::new();
        let ours = self.ours.iter().map(|name| (name, true));
        for (name, is_ours) in ours.chain(self.theirs.iter().map(|name| (name, false))) {
            let meant = find(merge, conflicts, name)?;
            if let Some((_, before)) = choices.iter().find(|(chosen, _)| *chosen == meant) {
                if matches!(before, Choice::Ours) != is_ours {
                    return Err(Error::Usage(format!("{name} is named by --ours and by --theirs")));
                }
                continue;
            }
            choices.push((meant, if is_ours { Choice::Ours } else { Choice::Theirs }));
        }
        Ok(choices)
    }
}

/// Whether a person can answer.
pub(crate) fn is_person_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a person about each of these conflicts.
pub(crate) fn ask(
    context: &Context,
    merge: &mut Merge<'_>,
    keyring: &mut Keyring,
    conflicts: &[&Conflict],
) -> Result<Vec<(OwnedIdentity, Choice)>, Error> {
    let identities: Vec<_> = conflicts.iter().map(|conflict| conflict.identity.clone()).collect();
    let versions = merge.versions(&identities)?;
    let (mut choices, mut open) = (Vec::new(), Vec::new());
    for (at, (conflict, versions)) in conflicts.iter().zip(&versions).enumerate() {
        terminal::note(&format!("{} of {}: {}", at + 1, conflicts.len(), combine::shown(conflict)));
        let mut question = Question { context, merge, keyring, conflict, versions };
        match question.answer()? {
            Answer::Choice(choice) => choices.push((conflict.identity.clone(), choice)),
            Answer::Skip => open.push(*conflict),
            Answer::Quit => {
                return Err(Error::Conflict(conflicts.iter().map(|it| combine::shown(it)).collect()));
            }
        }
    }
    if open.is_empty() {
        return Ok(choices);
    }
    // The file is either merged or in conflict, so what was chosen so far is not in it.
    terminal::note("nothing was written, because a credential is still in conflict; your choices so far:");
    terminal::note(&format!("    {}", command(&choices, conflicts)));
    Err(Error::Conflict(open.into_iter().map(combine::shown).collect()))
}

/// The command that makes these choices; what was edited is not among them.
fn command(choices: &[(OwnedIdentity, Choice)], conflicts: &[&Conflict]) -> String {
    let mut words = vec!["omni-credentials merge".to_owned()];
    for (chosen, choice) in choices {
        let option = match choice {
            Choice::Ours => "--ours",
            Choice::Theirs => "--theirs",
            Choice::Value { .. } => continue,
        };
        let namesakes = conflicts.iter().filter(|conflict| conflict.identity.name == chosen.name).count();
        words.push(format!("{option} '{}'", reference::of(&chosen.as_ref(), namesakes == 1)));
    }
    words.join(" ")
}

/// The credential in conflict that a reference means.
fn find(merge: &mut Merge<'_>, conflicts: &[Conflict], text: &str) -> Result<OwnedIdentity, Error> {
    let (name, selection) = reference::parse(text).map_err(Error::Meaningless)?;
    let Selection { kind, principal, scope } = selection;
    let scope = scope.map(|scope| merge.canonical_scope(&scope)).transpose()?;
    let same = |wanted: &Option<String>, found: &[u8]| {
        wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == found)
    };
    let mut found = conflicts.iter().map(|conflict| &conflict.identity).filter(|it| {
        it.name == name.as_bytes()
            && same(&kind, &it.kind)
            && same(&principal, &it.principal)
            && scope.as_ref().is_none_or(|scope| *scope == it.scope)
    });
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.clone()),
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(found);
            Err(Error::SeveralConflicts {
                name: name.clone(),
                found: all.map(|it| reference::of(&it.as_ref(), false)).collect(),
            })
        }
        (None, _) => {
            let conflicts = conflicts.iter().map(combine::shown).collect();
            Err(Error::NotInConflict { name: text.to_owned(), conflicts })
        }
    }
}

enum Answer {
    Choice(Choice),
    Skip,
    Quit,
}

/// One conflict, and what it takes to show and to decide it.
struct Question<'a, 'b> {
    context: &'a Context,
    merge: &'a mut Merge<'b>,
    keyring: &'a mut Keyring,
    conflict: &'a Conflict,
    versions: &'a Versions,
}

impl Question<'_, '_> {
    fn answer(&mut self) -> Result<Answer, Error> {
        self.show(false)?;
        loop {
            let question = "Keep [o]urs or [t]heirs, [e]dit, [v]iew the values, [s]kip, or [q]uit? ";
            let Some(answer) = prompt::line(question)? else { return Ok(Answer::Quit) };
            match answer.trim() {
                "o" | "ours" => return Ok(Answer::Choice(Choice::Ours)),
                "t" | "theirs" => return Ok(Answer::Choice(Choice::Theirs)),
                "e" | "edit" => match self.edit() {
                    Ok(Some(choice)) => return Ok(Answer::Choice(choice)),
                    Ok(None) => {}
                    Err(error @ (Error::NoEditor | Error::Editor { .. })) => terminal::report(&error, false),
                    Err(error) => return Err(error),
                },
                "v" | "view" => self.show(true)?,
                "s" | "skip" => return Ok(Answer::Skip),
                "q" | "quit" => return Ok(Answer::Quit),
                _ => terminal::note("Answer with one of the letters in brackets."),
            }
        }
    }

    /// Says what both sides are.
    fn show(&mut self, values: bool) -> Result<(), Error> {
        let mut lines = Zeroizing::new(String::new());
        for (side, version) in [("ours", &self.versions.ours), ("theirs", &self.versions.theirs)] {
            let text = match version {
                None => "deleted, or not there".to_owned(),
                Some(entry) => {
                    let text = match store::open(self.keyring, entry)? {
                        Ok(value) if values => output::escaped(&value),
                        Ok(value) => format!("a value of {} bytes", value.len()),
                        Err(reason) => format!("does not open: {reason}"),
                    };
                    format!("{text}, {}", expiry_of(entry.expires))
                }
            };
            if !lines.is_empty() {
                lines.push('\n');
            }
            lines.push_str(&format!("    {side}: {text}"));
        }
        terminal::note(&lines);
        Ok(())
    }

    /// Lets a person write what the merged file is to have. None if the person goes back.
    fn edit(&mut self) -> Result<Option<Choice>, Error> {
        let editor = editor::named()?;
        scratch::sweep();
        let (ours, theirs) = (self.edited(true)?, self.edited(false)?);
        let start = match (&ours, &theirs) {
            (Some(ours), theirs) => buffer::render_choice(ours, theirs.as_ref()),
            (None, Some(theirs)) => buffer::render_choice(theirs, None),
            (None, None) => {
                let nothing = Zeroizing::new(Vec::new());
                buffer::render_choice(&Edited::new(&self.conflict.identity.as_ref(), None, nothing), None)
            }
        };
        let mut text = start.clone();
        loop {
            let (edited, is_text) = buffer::from_editor(&editor::edit(self.context, &editor, &text)?);
            if buffer::is_given_up(&edited) || *edited == *start {
                return Ok(None);
            }
            let chosen = if is_text {
                self.chosen(&edited)
            } else {
                Err(Error::Meaningless("the edited text is not UTF-8".to_owned()))
            };
            match chosen {
                Ok(choice) => return Ok(Some(choice)),
                Err(error @ Error::Interrupted(_)) => return Err(error),
                Err(error) => {
                    let what_to_do = "Fix it and save, or empty the file to go back.";
                    text = buffer::with_notice(&edited, &format!("{error}\n{what_to_do}"));
                }
            }
        }
    }

    /// What a side has, for an editor; none where it has nothing or its value does not open.
    fn edited(&mut self, is_ours: bool) -> Result<Option<Edited>, Error> {
        let version = if is_ours { &self.versions.ours } else { &self.versions.theirs };
        let Some(entry) = version else { return Ok(None) };
        let value = store::open(self.keyring, entry)?;
        Ok(value.ok().map(|value| Edited::new(&entry.identity(), entry.expires, value.into())))
    }

    fn chosen(&mut self, text: &str) -> Result<Choice, Error> {
        let mut all = buffer::parse(text)?;
        let (Some(edited), true) = (all.pop(), all.is_empty()) else {
            return Err(Error::Meaningless("the text has to hold this one credential".to_owned()));
        };
        let wanted = &self.conflict.identity;
        let scope = self.merge.canonical_scope(&edited.scope)?;
        let found = [edited.name.as_bytes(), edited.kind.as_bytes(), edited.principal.as_bytes(), &scope];
        if found != [&*wanted.name, &*wanted.kind, &*wanted.principal, &*wanted.scope] {
            let shown = identity::shown(&wanted.as_ref());
            return Err(Error::Meaningless(format!("the credential has to stay {shown}")));
        }
        // Sealed here, so that what is not valid is said while the text is at hand.
        let refused = Error::of_argument(identity::shown(&wanted.as_ref()));
        self.keyring.seal(&wanted.as_ref(), edited.expires, &edited.value).map_err(refused)?;
        Ok(Choice::Value { expires: edited.expires, value: edited.value })
    }
}

fn expiry_of(expires: Option<u64>) -> String {
    match expires {
        Some(_) => format!("expires {}", expiry::shown(expires)),
        None => "never expires".to_owned(),
    }
}
