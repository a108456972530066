//! The vectors by what they need from an implementation.

use crate::encoding::expect;
use crate::{Mismatch, Subject, golden, hostile, published};

/// Vectors that are run together.
#[derive(Debug)]
pub struct Set {
    /// Its name: `golden-values`.
    pub name: &'static str,
    /// How many there are for suite 1 and suite 2: none may go missing unnoticed.
    cases: [usize; 2],
    /// Whether they say something about a suite that FORMAT.md does not have.
    every_suite: bool,
    run: fn(&mut dyn Subject) -> Result<usize, Mismatch>,
}

/// All sets.
pub const SETS: [Set; 14] = [
    Set { name: "wycheproof-aead", cases: [315, 202], every_suite: false, run: published::wycheproof_aead },
    Set { name: "wycheproof-hkdf", cases: [86, 86], every_suite: true, run: published::wycheproof_hkdf },
    Set { name: "standard-aead", cases: [1, 24], every_suite: false, run: published::standard_aead },
    Set { name: "standard-kdf", cases: [11, 11], every_suite: true, run: published::standard_kdf },
    Set { name: "golden-keyrings", cases: [7, 7], every_suite: false, run: golden::keyrings },
    Set { name: "golden-values", cases: [17, 17], every_suite: false, run: golden::values },
    Set { name: "golden-files", cases: [5, 5], every_suite: false, run: golden::files },
    Set {
        name: "golden-reconciliations",
        cases: [119, 119],
        every_suite: false,
        run: golden::reconciliations,
    },
    Set { name: "golden-scopes", cases: [42, 42], every_suite: false, run: golden::scopes },
    Set { name: "hostile-secrets", cases: [10, 10], every_suite: false, run: hostile::secrets },
    Set { name: "hostile-keyrings", cases: [42, 42], every_suite: false, run: hostile::keyrings },
    Set { name: "hostile-values", cases: [26, 26], every_suite: false, run: hostile::values },
    Set { name: "hostile-scopes", cases: [35, 35], every_suite: false, run: hostile::scopes },
    Set { name: "hostile-files", cases: [109, 109], every_suite: false, run: hostile::files },
];

/// The sets that say something about this suite: all for those of FORMAT.md, few for another.
pub fn of_suite(suite: u8) -> impl Iterator<Item = &'static Set> {
    SETS.iter().filter(move |set| set.every_suite || set.cases(suite).is_some())
}

impl Set {
    /// Runs the set and returns the number of its cases.
    ///
    /// # Errors
    /// The first mismatch; a number of cases that is not the known one is one too.
    pub fn run(&self, subject: &mut dyn Subject) -> Result<usize, Mismatch> {
        let count = (self.run)(subject)?;
        let known = self.cases(subject.suite()).unwrap_or(count);
        expect(format!("the number of cases of {}", self.name), known, count)?;
        Ok(count)
    }

    /// How many cases there are for a suite of FORMAT.md.
    fn cases(&self, suite: u8) -> Option<usize> {
        self.cases.get(usize::from(suite).checked_sub(1)?).copied()
    }
}
